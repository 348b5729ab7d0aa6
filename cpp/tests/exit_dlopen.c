/*
 * A program that loads the library, and unloads it while tasks are running.
 *
 *     exit_dlopen HOW LIBRARY ENGINE
 *
 * HOW: left (it just ends), or again (it loads it once more, goes on, and ends).
 */
#include <defectrt/defectrt.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH 50
#define HEIGHT 40

static unsigned char pixels[WIDTH * HEIGHT], mask[WIDTH * HEIGHT];

/* What is called with its type. */
struct functions {
    void *library;
    defectrt_status (*create)(defectrt_engine **);
    defectrt_status (*open)(defectrt_engine *, const char *, const defectrt_engine_options *);
    defectrt_status (*session)(defectrt_engine *, const defectrt_session_options *,
                               defectrt_session **);
    defectrt_status (*submit)(defectrt_session *, const defectrt_request *, int32_t,
                              defectrt_task **);
    defectrt_status (*poll)(const defectrt_task *, uint32_t *, uint32_t *);
};

static void *find(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (found == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    return found;
}

static struct functions load(const char *path) {
    struct functions f;
    f.library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (f.library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    /* ISO C has no conversion from void * to a function; POSIX has, in memory */
    *(void **)&f.create = find(f.library, "defectrt_engine_create");
    *(void **)&f.open = find(f.library, "defectrt_engine_open");
    *(void **)&f.session = find(f.library, "defectrt_session_create");
    *(void **)&f.submit = find(f.library, "defectrt_submit");
    *(void **)&f.poll = find(f.library, "defectrt_task_poll");
    return f;
}

/* Opens an engine, starts a task that takes minutes, waits for its first step, and unloads. */
static int start_and_unload(const char *library, const char *directory) {
    struct functions f = load(library);
    defectrt_engine *engine = NULL;
    defectrt_session *session = NULL;
    defectrt_task *task = NULL;
    defectrt_request request = {0};
    const defectrt_engine_options options = {sizeof options, 1, NULL, NULL};
    uint32_t done = 0;
    request.struct_size = sizeof request;
    request.image.data = pixels;
    request.image.stride = WIDTH;
    request.image.width = WIDTH;
    request.image.height = HEIGHT;
    request.image.depth = 8;
    request.mask.data = mask;
    request.mask.stride = WIDTH;
    request.candidates = 10000;
    if (f.create(&engine) || f.open(engine, directory, &options) ||
        f.session(engine, NULL, &session) || f.submit(session, &request, -1, &task)) {
        fprintf(stderr, "the engine did not start\n");
        return 1;
    }
    while (done == 0) f.poll(task, &done, NULL);
    return dlclose(f.library);
}

int main(int argc, char **argv) {
    int i, y;
    if (argc < 4) return 2;
    memset(pixels, 160, sizeof pixels);
    for (y = 16; y < 24; ++y) memset(mask + y * WIDTH + 20, 1, 8);
    for (i = strcmp(argv[1], "again") == 0 ? 3 : 1; i > 0; --i) {
        if (start_and_unload(argv[2], argv[3]) != 0) return 1;
    }
    return 0;
}
