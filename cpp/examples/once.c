/*
 * A C program: one image, one mask, one defect.
 *
 *     once ENGINE IN.pgm MASK.pgm OUT.pgm [SEED]
 *
 * Images are binary PGM of 8 bits, so that the example needs no library for images.
 */
#include <defectrt/defectrt.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned char *read_pgm(const char *path, unsigned *width, unsigned *height) {
    unsigned char *pixels = NULL;
    unsigned top = 0;
    FILE *file = fopen(path, "rb");
    if (file == NULL) return NULL;
    if (fscanf(file, "P5 %u %u %u", width, height, &top) == 3 && fgetc(file) != EOF &&
        top == 255 && *width > 0 && *height > 0 && *width < 65536 && *height < 65536) {
        const size_t size = (size_t)*width * *height;
        pixels = malloc(size);
        if (pixels != NULL && fread(pixels, 1, size, file) != size) {
            free(pixels);
            pixels = NULL;
        }
    }
    fclose(file);
    return pixels;
}

static int write_pgm(const char *path, const unsigned char *pixels, unsigned width,
                     unsigned height) {
    const size_t size = (size_t)width * height;
    FILE *file = fopen(path, "wb");
    if (file == NULL) return 0;
    int good = fprintf(file, "P5\n%u %u\n255\n", width, height) > 0;
    good = fwrite(pixels, 1, size, file) == size && good;
    return fclose(file) == 0 && good;
}

static int complain(const char *what, defectrt_status status, defectrt_engine *engine) {
    char text[1024];
    defectrt_engine_error(engine, text, sizeof text);
    fprintf(stderr, "%s: %s: %s\n", what, defectrt_status_name(status), text);
    return (int)status;
}

static int synthesize(defectrt_session *session, char **argv, uint64_t seed) {
    unsigned width = 0, height = 0, mask_width = 0, mask_height = 0;
    unsigned char *image = read_pgm(argv[2], &width, &height);
    unsigned char *mask = read_pgm(argv[3], &mask_width, &mask_height);
    int code = DEFECTRT_INPUT;
    if (image == NULL || mask == NULL || width != mask_width || height != mask_height) {
        fprintf(stderr, "image and mask have to be PGM of 8 bits and one size\n");
    } else {
        defectrt_request request = {0};
        defectrt_result result = {0};
        request.struct_size = sizeof request;
        request.image.data = image;
        request.image.stride = (ptrdiff_t)width;
        request.image.width = width;
        request.image.height = height;
        request.image.format = DEFECTRT_GREY;
        request.image.depth = 8;
        request.mask.data = mask;
        request.mask.stride = (ptrdiff_t)width;
        request.seed = seed;
        result.struct_size = sizeof result;
        result.image = image; /* over the source */
        code = (int)defectrt_synthesize(session, &request, &result);
        if (code != DEFECTRT_OK) {
            fprintf(stderr, "%s: %s\n", defectrt_status_name(code), result.message);
        } else if (!write_pgm(argv[4], image, width, height)) {
            fprintf(stderr, "%s: cannot be written\n", argv[4]);
            code = 5;
        } else {
            printf("%lld px of defect, visibility %.2f, %.2f s\n", (long long)result.refined_area,
                   result.visibility, result.seconds);
        }
    }
    free(image);
    free(mask);
    return code;
}

int main(int argc, char **argv) {
    defectrt_engine *engine = NULL;
    defectrt_session *session = NULL;
    defectrt_session_options options;
    char defect_type[128];
    int code;
    if (argc < 5) {
        fprintf(stderr, "once ENGINE IN.pgm MASK.pgm OUT.pgm [SEED]\n");
        return DEFECTRT_USAGE;
    }
    defectrt_status status = defectrt_engine_create(&engine);
    if (status == DEFECTRT_OK) status = defectrt_engine_open(engine, argv[1], NULL);
    if (status == DEFECTRT_OK) {
        /* the first of the types that the engine makes */
        defectrt_session_options_init(&options, sizeof options);
        status = defectrt_engine_defect_type(engine, 0, defect_type, sizeof defect_type, NULL);
        options.defect = defect_type;
    }
    if (status == DEFECTRT_OK) status = defectrt_session_create(engine, &options, &session);
    if (status != DEFECTRT_OK) {
        code = complain(argv[1], status, engine);
    } else {
        code = synthesize(session, argv, argc > 5 ? strtoull(argv[5], NULL, 10) : 0);
    }
    defectrt_session_destroy(session);
    defectrt_engine_destroy(engine);
    return code;
}
