// Memory: every allocation of ours fails once, and nothing but a status comes of it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <new>

#include <unistd.h>

#include "support.hpp"

extern "C" const char __executable_start, etext;

namespace {

thread_local long failing = -1;

/// Whether the code that allocates is this program's, the static library included.
bool is_ours(const void *caller) { return caller >= &__executable_start && caller < &etext; }

void *allocate(std::size_t size, const void *caller) {
    if (failing >= 0 && is_ours(caller) && failing-- == 0) throw std::bad_alloc();
    if (void *memory = std::malloc(size == 0 ? 1 : size)) return memory;
    throw std::bad_alloc();
}

/// Resident memory in kB.
long resident() {
    long size = 0, pages = 0;
    std::ifstream("/proc/self/statm") >> size >> pages;
    return pages * sysconf(_SC_PAGESIZE) / 1024;
}

/// Open, make a sample on this thread and one in the queue, close; the first status not OK.
defectrt_status everything(const Picture &picture, const defectrt::Result &into) {
    defectrt_engine *engine = nullptr;
    defectrt_session *session = nullptr;
    defectrt_task *task = nullptr;
    defectrt_result result = into;
    defectrt_status status = defectrt_engine_create(&engine);
    const defectrt_engine_options options{sizeof options, 1};
    if (!status) status = defectrt_engine_open(engine, DEFECTRT_TEST_ENGINE, &options);
    if (!status) status = defectrt_session_create(engine, nullptr, &session);
    if (!status) status = defectrt_synthesize(session, &picture.request, &result);
    if (!status) status = defectrt_submit(session, &picture.request, -1, &task);
    if (!status) status = defectrt_task_wait(task, -1);
    if (!status) status = defectrt_task_result(task, &result);
    defectrt_task_release(task);
    defectrt_session_destroy(session);
    defectrt_engine_destroy(engine);
    return status;
}

}  // namespace

#pragma GCC diagnostic ignored "-Wmismatched-new-delete"  // they do match, below

// Not inlined, so that the return address is the allocating code's.
__attribute__((noinline)) void *operator new(std::size_t size) {
    return allocate(size, __builtin_return_address(0));
}
__attribute__((noinline)) void *operator new[](std::size_t size) {
    return allocate(size, __builtin_return_address(0));
}
void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete[](void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void *memory, std::size_t) noexcept { std::free(memory); }

TEST(Memory, RunningOutIsAStatusWhereverItHappens) {
    const Picture picture;
    const defectrt::Result into(picture.request);
    long failed = 0, at = 0;
    // every one of the first, then more and more apart: there are thousands
    for (;; at += 1 + at / 40) {
        failing = at;
        const defectrt_status status = everything(picture, into);
        const bool was_reached = failing < 0;
        failing = -1;
        if (!was_reached) break;
        ++failed;
        ASSERT_TRUE(status == DEFECTRT_NO_MEMORY || status == DEFECTRT_OK)
            << "allocation " << at << ": " << defectrt_status_name(status);
    }
    EXPECT_GT(failed, 100);
    EXPECT_EQ(everything(picture, into), DEFECTRT_OK) << "it goes on afterwards";
}

TEST(Memory, StaysFlatOverAThousandSessions) {
    const Picture picture;
    const defectrt::Result into(picture.request);
    defectrt_engine *engine = nullptr;
    ASSERT_EQ(defectrt_engine_create(&engine), DEFECTRT_OK);
    const defectrt_engine_options options{sizeof options, 1};
    long before = 0;
    for (int i = 0; i < 1000; ++i) {
        if (i == 200) before = resident();
        ASSERT_EQ(defectrt_engine_open(engine, DEFECTRT_TEST_ENGINE, &options), DEFECTRT_OK);
        defectrt_session *session = nullptr;
        ASSERT_EQ(defectrt_session_create(engine, nullptr, &session), DEFECTRT_OK);
        if (i % 50 == 0) {
            defectrt_result result = into;
            ASSERT_EQ(defectrt_synthesize(session, &picture.request, &result), DEFECTRT_OK);
        }
        defectrt_session_destroy(session);
    }
    defectrt_engine_destroy(engine);
    EXPECT_LT(resident() - before, 4096) << "kB that 800 cycles left behind";
}
