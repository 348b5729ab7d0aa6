/*
 * defectrt: realistic, labelled defects in photographs of good parts.
 *
 * This header is the contract; docs/integrators-guide.md explains it. C99 and C++17.
 *
 * Ownership  Handles belong to the library: what a function creates, its destroy or release frees.
 *            Buffers belong to the caller. No pointer to an image, mask, text or result is kept
 *            after the call that it was given to has returned, but for a request's `progress` and
 *            `user`, which are used until its task has ended, and, of an image that was lent, its
 *            pixels and `user`, until `release` is called.
 * Threads    Every function may be called from any thread, on the same handle too, unless it says
 *            otherwise. Destroying a handle while another thread is inside a call with it is not
 *            allowed.
 * Errors     A function that can fail returns a status. The text of the last failure is kept with
 *            the handle (with several threads: of whoever failed last; a result carries its own).
 *            A failed call creates nothing: out-pointers are set to NULL, buffers are not written
 *            to, and the handle can be used as before.
 * Versions   Every struct begins with its size, as the caller's compiler knows it, so a program
 *            keeps working with later libraries of the same `DEFECTRT_API_VERSION`. Members and
 *            functions are added at the end, which raises `DEFECTRT_API_REVISION`; what they are
 *            given as 0 means what there was before. Numbers are never reused.
 *
 * Exit       A process may end with sessions open. exit() (or a return from main) then cancels what
 *            is under way, and waits until no thread is inside an engine or, for ten seconds, in a
 *            callback. From then on calls that need an engine end as CANCELLED. The shared
 *            library stays in memory after dlclose.
 *
 * Nothing here throws, aborts, prints, exits, or installs a signal handler. Of the environment it
 * reads DEFECTRT_ONNXRUNTIME, and sets ORT_DISABLE_TELEMETRY if that is not set. Nothing leaves the
 * machine, and no file is written.
 */
#ifndef DEFECTRT_DEFECTRT_H
#define DEFECTRT_DEFECTRT_H

#include <stddef.h>
#include <stdint.h>

#if defined(DEFECTRT_STATIC)
#define DEFECTRT_API
#elif defined(_WIN32)
#ifdef DEFECTRT_BUILDING
#define DEFECTRT_API __declspec(dllexport)
#else
#define DEFECTRT_API __declspec(dllimport)
#endif
#else
#define DEFECTRT_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define DEFECTRT_API_VERSION 1
#define DEFECTRT_API_REVISION 4

/* ---- status ------------------------------------------------------------------------------- */

/* 0 to 19 and 130 are shared with Python's errors and the command line's exit codes. */
typedef enum defectrt_status {
    DEFECTRT_OK = 0,
    DEFECTRT_ERROR = 1,          /* a fault in the library itself; please report the text */
    DEFECTRT_USAGE = 2,          /* the call is wrong: an impossible option, a NULL, a bad size */
    DEFECTRT_INPUT = 3,          /* an image or mask cannot be used as it is */
    DEFECTRT_ENGINE = 4,         /* an engine is damaged, foreign, or failed while running */
    DEFECTRT_NOTHING_DONE = 8,   /* no candidate of an instance is fit: unseen, or it leaks */
    DEFECTRT_NO_MEMORY = 20,     /* an allocation failed; nothing was leaked */
    DEFECTRT_BUSY = 21,          /* the queue is full */
    DEFECTRT_PENDING = 22,       /* not finished yet */
    DEFECTRT_CLOSED = 23,        /* the session was shut down, or the engine is not open */
    DEFECTRT_CANCELLED = 130     /* stopped by the caller */
} defectrt_status;

/* "DEFECTRT_INPUT" and so on; "unknown status" for other numbers. Static storage. */
DEFECTRT_API const char *defectrt_status_name(int32_t status);

/* ---- version ------------------------------------------------------------------------------ */

/* "0.1.0". Static storage. */
DEFECTRT_API const char *defectrt_version(void);

/* The DEFECTRT_API_VERSION that the library was built with. */
DEFECTRT_API int32_t defectrt_api_version(void);

/*
 * One line on how the library was built and what it runs on: version, compiler, backends, and the
 * ONNX Runtime that an engine is opened with if its options name none, or why there is none.
 *
 * Like all functions of (buffer, size): writes at most size bytes, the last of which is 0, and
 * returns the length of the whole text without it. buffer may be NULL if size is 0.
 */
DEFECTRT_API size_t defectrt_build_info(char *buffer, size_t size);

/*
 * A request's seed: what Python's jobs use for an image of this name (its path under the folder
 * of images, with /; UTF-8, NULL counts as ""), the job's seed and the sample's number.
 */
DEFECTRT_API uint64_t defectrt_sample_seed(uint64_t seed, const char *name, uint32_t sample);

/* ---- engine ------------------------------------------------------------------------------- */

typedef struct defectrt_engine defectrt_engine;

typedef struct defectrt_engine_options {
    size_t struct_size;
    int32_t threads; /* CPU threads of a step, shared by all sessions; 0: one a core, and never
                        more; a container's quota of CPU time counts */
    /*
     * Since revision 2. Engines of other backends than onnx are machine code, which may do anything
     * that the process may do, and are opened only if their fingerprint (64 hexadecimal digits, see
     * `defectrt info`) stands here; several are divided by commas or spaces. NULL: none.
     */
    const char *trust;
    /*
     * Since revision 4. The file of ONNX Runtime 1.23 or a later 1.x, UTF-8. NULL: the one that
     * DEFECTRT_ONNXRUNTIME names, else the one beside this library (or beside the program that it
     * is part of), else the one that the system finds. It is loaded by the first engine, and stays.
     */
    const char *onnxruntime;
} defectrt_engine_options;

typedef struct defectrt_engine_info {
    size_t struct_size;
    int32_t format_version;
    int32_t window;           /* px of the image; the square that the model sees at once; 0 where it
                                 sees whole images, each mask of which is then one instance */
    int32_t latent_channels;
    int32_t latent_height;
    int32_t latent_width;
    int32_t defect_types;     /* how many, see defectrt_engine_defect_type */
    int32_t default_steps;
    int32_t schedules;        /* numbers of steps to choose from, see defectrt_engine_steps */
} defectrt_engine_info;

/* An empty handle, which then takes the text of what goes wrong. USAGE, NO_MEMORY. */
DEFECTRT_API defectrt_status defectrt_engine_create(defectrt_engine **engine);

/*
 * Verify a directory (schema, version, paths, size and SHA-256 of every file) and open it.
 *
 * Engines of the backend onnx, in a build with libtorch also of aoti. EXPERIMENTAL: of tensorrt or
 * tensorrt-rtx in a build with DEFECTRT_EXPERIMENTAL_TENSORRT, which was compiled and never run.
 * What a build does not open is an ENGINE error; defectrt_build_info names the backends.
 *
 * directory is UTF-8. options may be NULL. A handle that is open already lets go of its engine if
 * the new one opens; sessions made of the former go on with it.
 * USAGE (NULL, options), ENGINE (with every fault in the text; not trusted; no ONNX Runtime, or one
 * that is too old), NO_MEMORY.
 */
DEFECTRT_API defectrt_status defectrt_engine_open(defectrt_engine *engine, const char *directory,
                                                  const defectrt_engine_options *options);

/* Verify a directory of any backend without opening it. USAGE, ENGINE, NO_MEMORY. */
DEFECTRT_API defectrt_status defectrt_engine_verify(defectrt_engine *engine,
                                                    const char *directory);

/* USAGE, CLOSED. */
DEFECTRT_API defectrt_status defectrt_engine_get_info(defectrt_engine *engine,
                                                      defectrt_engine_info *info);

/* Name of a type of defect, 0 … defect_types-1; *length is the whole length. USAGE, CLOSED. */
DEFECTRT_API defectrt_status defectrt_engine_defect_type(defectrt_engine *engine, int32_t index,
                                                         char *buffer, size_t size, size_t *length);

/* One of the numbers of steps, 0 … schedules-1, rising. USAGE, CLOSED. */
DEFECTRT_API defectrt_status defectrt_engine_steps(defectrt_engine *engine, int32_t index,
                                                   int32_t *steps);

/* Text of the last failure on this handle, "" if there was none. */
DEFECTRT_API size_t defectrt_engine_error(const defectrt_engine *engine, char *buffer,
                                          size_t size);

/* Sessions keep what they need; the order does not matter. NULL is allowed. */
DEFECTRT_API void defectrt_engine_destroy(defectrt_engine *engine);

/* ---- session ------------------------------------------------------------------------------ */

typedef struct defectrt_session defectrt_session;

enum {
    DEFECTRT_NOISED = 0, /* the background's latents are the image's with noise, as in training */
    DEFECTRT_REPLAY = 1, /* they are the inverted image's: twice the work */
    DEFECTRT_DUAL = 2    /* they are denoised again beside the defect, as in the paper; with the
                            others no latent outside the mask changes */
};

enum {
    DEFECTRT_RESIDUAL = 0, /* the change that the model made is added to the original */
    DEFECTRT_DECODED = 1   /* the model's own pixels, blended in */
};

enum {
    DEFECTRT_REFINE_CHANGE = 0,    /* where the image changed */
    DEFECTRT_REFINE_ATTENTION = 1, /* where the model attended to the defect, Eq. 13 */
    DEFECTRT_REFINE_BOTH = 2,      /* both have to agree */
    DEFECTRT_REFINE_NONE = 3       /* the mask as it was given */
};

typedef struct defectrt_session_options {
    size_t struct_size;
    const char *defect;      /* UTF-8; NULL if the engine makes one type only */
    int32_t steps;           /* DDIM steps, one of the engine's schedules; 0: its default */
    int32_t background;      /* DEFECTRT_NOISED, _REPLAY or _DUAL */
    int32_t blend;           /* DEFECTRT_RESIDUAL or DEFECTRT_DECODED */
    int32_t refine;          /* DEFECTRT_REFINE_... */
    double refine_threshold; /* of the attention, 0 to 1 of its maximum; 0.5 */
    double min_change;       /* of the difference, 0 to 1 of the full range; 0.03 */
    double min_grain;        /* above that, times the surface's own variation, 0 to 1e9; 2 */
    double refine_smooth;    /* px; blur of the difference, 0 to 1000; 1 */
    int32_t refine_min_area; /* px; smaller specks are noise; 4 */
    double min_coverage;     /* share of the mask that has to become defect, 0 to 1; 0.25 */
    double max_leak;         /* change of the border allowed, in units of the defect's; 1 */
    double grow;             /* px beyond the mask in which the result counts fully; 2 */
    double feather;          /* px over which it then fades; beyond, no bit is changed; 4 */
    int32_t context;         /* px of surroundings around a mask that fills the window; 8 */
    int32_t batch_size;      /* candidates in the engine at once, 1 to 1024; 4 */
    int32_t workers;         /* threads that work on the queue, 1 to 256; 1 */
    int32_t queue;           /* tasks that may wait, 1 to 1000000; 8 */
    int32_t retries;         /* as many candidates again while none is fit, 0 to 100 times; 3 */
} defectrt_session_options;

/* Defaults. struct_size is sizeof(defectrt_session_options). USAGE for NULL or a wrong size. */
DEFECTRT_API defectrt_status defectrt_session_options_init(defectrt_session_options *options,
                                                           size_t struct_size);

/*
 * A session makes defects of one type, unless a request names others, and in one way. Sessions of an
 * engine share its graphs.
 *
 * options may be NULL. The text of a failure is the engine's.
 * USAGE (every impossible option in the text), CLOSED (the engine is not open), ENGINE (its window
 * is no square of three channels), NO_MEMORY.
 */
DEFECTRT_API defectrt_status defectrt_session_create(defectrt_engine *engine,
                                                     const defectrt_session_options *options,
                                                     defectrt_session **session);

/* Text of the last failure on this handle, "" if there was none. */
DEFECTRT_API size_t defectrt_session_error(const defectrt_session *session, char *buffer,
                                           size_t size);

/*
 * Accept nothing more, cancel what waits or runs (CANCELLED), and wait for the workers to end.
 * Calls of defectrt_synthesize that are under way on other threads end as CANCELLED too, later ones
 * as CLOSED, like those of defectrt_submit. Tasks stay readable.
 * Not from a progress callback. May be called again. USAGE.
 */
DEFECTRT_API defectrt_status defectrt_session_shutdown(defectrt_session *session);

/* Shut down and free. Not from a progress callback. Tasks stay valid. NULL is allowed. */
DEFECTRT_API void defectrt_session_destroy(defectrt_session *session);

/* ---- one image ---------------------------------------------------------------------------- */

enum {
    DEFECTRT_GREY = 0,
    DEFECTRT_GREY_ALPHA = 1,
    DEFECTRT_RGB = 2,
    DEFECTRT_RGBA = 3,
    DEFECTRT_BGR = 4,
    DEFECTRT_BGRA = 5
};

/* Interleaved pixels. stride is in bytes from row to row, 0 if rows follow each other, negative for
 * bottom-up images (data is the first row shown); rows of 16 bits (native endian) need not be
 * aligned. */
typedef struct defectrt_image {
    const void *data;
    ptrdiff_t stride;
    uint32_t width;
    uint32_t height;
    int32_t format; /* DEFECTRT_GREY ... */
    int32_t depth;  /* bits a channel: 8 or 16 */
} defectrt_image;

/* One byte a pixel, of the image's size; anything but 0 is defect. stride as an image's. */
typedef struct defectrt_mask {
    const uint8_t *data;
    ptrdiff_t stride;
} defectrt_mask;

/*
 * Told after every step, from the thread that works: `done` of `total`. Return 0 to go on,
 * anything else to cancel. It may call poll, cancel and error functions.
 */
typedef int32_t (*defectrt_progress)(void *user, uint32_t done, uint32_t total);

/*
 * Told once, from any thread, that a lent image is not read any more: its task's handle was given
 * back and no worker is at it. It may call every function, with other handles too. Not told once
 * exit() has begun.
 */
typedef void (*defectrt_release)(void *user);

typedef struct defectrt_request {
    size_t struct_size;
    defectrt_image image;
    defectrt_mask mask;
    uint64_t seed;       /* the sample's own, see defectrt_sample_seed */
    uint32_t candidates; /* tried from one inversion, the best is kept; 0 is 1, at most 10000 */
    defectrt_progress progress; /* may be NULL */
    void *user;
    /* revision 1: several defects in one image, painted one after another */
    const defectrt_mask *instances; /* painted after `mask`, in this order; may be NULL if none */
    uint32_t instance_count;        /* of them; less than 1000 */
    int32_t split;                  /* 1: pieces of a mask that lie far apart are a defect each, as
                                       in Python's folder of masks; 0: every mask is one defect. Far
                                       is more than a quarter of the engine's window, and than two
                                       soft borders; at most 1000 pieces a mask. Nothing where the
                                       engine sees whole images */
    /* revision 3 */
    double strength; /* contrast of the defects to their surroundings: 0.5 half as bright, or half
                        as bright again, 1 black, or twice as bright; at most 10, and as nearly as
                        can be; 0: as strong as the model paints them */
    /* revision 4 */
    defectrt_release release; /* for defectrt_submit: the image is lent instead of copied, and stays
                                 as it is until this is called with `user`; NULL: it is copied */
    const char *const *defects; /* types of the defects under `mask` and then under `instances`,
                                   instance_count + 1 of them, UTF-8; NULL, all or one: the
                                   session's */
    const double *strengths;    /* of the defects, likewise, each as `strength`; NULL: `strength` is
                                   everyone's */
    defectrt_mask within; /* where a defect may be: a mask with a pixel elsewhere is an INPUT error,
                             nothing is moved; without data: everywhere */
} defectrt_request;

#define DEFECTRT_MESSAGE_SIZE 256

/*
 * Where a result goes. The first part is filled in by the caller, the second by the library.
 * Any buffer may be NULL. Buffers must not overlap each other; `image` may be the source's own
 * buffer if it is laid out alike.
 */
typedef struct defectrt_result {
    size_t struct_size;
    void *image;              /* the source's size, format and depth */
    ptrdiff_t image_stride;   /* bytes; 0: rows follow each other */
    uint8_t *mask;            /* the refined mask, 0 or 255 */
    ptrdiff_t mask_stride;    /* bytes; 0: rows follow each other */
    uint8_t *band;            /* 255 where the image may differ from the source, else 0 */
    ptrdiff_t band_stride;    /* bytes; 0: rows follow each other */
    float *latent;            /* z*_0 of the last tile, of the shape of the engine's latent */
    size_t latent_size;       /* floats that fit */

    int64_t window_y;         /* the square that the model saw (of the first tile), px */
    int64_t window_x;
    int64_t window_side;
    int64_t mask_area;        /* px */
    int64_t refined_area;     /* px */
    int64_t changed_area;     /* px */
    double visibility;        /* mean change where the defect is, share of the full range */
    double coverage;          /* share of the mask that became defect */
    double seam;              /* mean change that the soft border had to fade out */
    double latent_outside_error; /* largest change of the background's latent */
    double seconds;
    uint32_t tiles;           /* windows that it took: several if a mask is over twice the size */
    uint32_t candidate;       /* the one that was kept, from 0 (of the last tile) */
    uint32_t rejected;        /* candidates that were not fit */
    char message[DEFECTRT_MESSAGE_SIZE]; /* what failed, cut to fit; "" if nothing did */
    /* revision 3 */
    double strength; /* contrast to the surroundings, see the request; of the strongest tile */
} defectrt_result;

/*
 * Bytes that rows following each other take: of a result's image, and of its mask or band.
 * Either pointer may be NULL. USAGE (NULL, struct_size), INPUT (as defectrt_synthesize).
 */
DEFECTRT_API defectrt_status defectrt_result_size(const defectrt_request *request,
                                                  size_t *image_bytes, size_t *mask_bytes);

/* Bytes that a session takes, at most. The engine's own come on top: its weights, and what ONNX
 * Runtime keeps for the largest batch it has seen. */
typedef struct defectrt_memory {
    size_t struct_size;
    uint64_t task;    /* a task, from defectrt_submit until its handle is given back */
    uint64_t work;    /* a worker or a call of defectrt_synthesize, while it works */
    uint64_t session; /* with a full queue and all workers at work; tasks that have ended come on
                         top until their handles are given back */
} defectrt_memory;

/*
 * What a session would take if all requests were like this one, of which the masks are read and the
 * image is not.
 * USAGE, INPUT (as defectrt_synthesize), NO_MEMORY.
 */
DEFECTRT_API defectrt_status defectrt_session_memory(defectrt_session *session,
                                                     const defectrt_request *request,
                                                     defectrt_memory *memory);

/*
 * Make one sample, on the calling thread; any number of threads may do so at once.
 *
 * On an error the result's buffers are not written to, and its `message` says why.
 * USAGE, INPUT (layout, size, an empty mask or one that leaves its region, too many pieces), ENGINE
 * (the engine failed or gave what is not finite), NOTHING_DONE (an instance in which no candidate is
 * fit), CLOSED, CANCELLED, NO_MEMORY.
 */
DEFECTRT_API defectrt_status defectrt_synthesize(defectrt_session *session,
                                                 const defectrt_request *request,
                                                 defectrt_result *result);

/* ---- many images -------------------------------------------------------------------------- */

typedef struct defectrt_task defectrt_task;

/*
 * Queue a request. Waits up to timeout_ms for room in the queue, without end if negative; 0 answers
 * at once. Only then are the masks read and the image is copied, or lent (see `release`); what fails
 * was not lent. Of masks no more is kept than what lies in the windows to be painted.
 * USAGE, INPUT (as defectrt_synthesize), BUSY (no room), CLOSED, NO_MEMORY.
 */
DEFECTRT_API defectrt_status defectrt_submit(defectrt_session *session,
                                             const defectrt_request *request, int32_t timeout_ms,
                                             defectrt_task **task);

/* PENDING, or how it ended. done and total may be NULL. USAGE. */
DEFECTRT_API defectrt_status defectrt_task_poll(const defectrt_task *task, uint32_t *done,
                                                uint32_t *total);

/* Wait up to timeout_ms, without end if negative. PENDING, or how it ended. USAGE. */
DEFECTRT_API defectrt_status defectrt_task_wait(const defectrt_task *task, int32_t timeout_ms);

/* Ask it to stop; returns at once. What has ended stays as it is. USAGE. */
DEFECTRT_API defectrt_status defectrt_task_cancel(defectrt_task *task);

/*
 * Copy the result out, as often as wanted. PENDING, or how it ended; USAGE for buffers that cannot
 * hold it. Only with OK are buffers written to.
 */
DEFECTRT_API defectrt_status defectrt_task_result(const defectrt_task *task,
                                                  defectrt_result *result);

/* Why it failed, "" if it did not (yet). */
DEFECTRT_API size_t defectrt_task_error(const defectrt_task *task, char *buffer, size_t size);

/*
 * Since revision 4. What a line of Python's manifest.jsonl says of a sample, one line of JSON: `masks`
 * with types and the strengths that were wanted, seed, defect, steps, background, blend, the engine's
 * fingerprint, its tiles and its figures. Not what the library does not know: files, and where masks
 * are from. "" unless it ended with OK.
 */
DEFECTRT_API size_t defectrt_task_record(const defectrt_task *task, char *buffer, size_t size);

/* Give the handle back; cancels what has not ended. NULL is allowed. */
DEFECTRT_API void defectrt_task_release(defectrt_task *task);

#ifdef __cplusplus
}
#endif

#endif
