// Memory: allocations of ours fail, on every thread, and nothing but a status comes of it.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <new>

#include <execinfo.h>
#include <link.h>
#include <unistd.h>

#include "support.hpp"

extern "C" const char __executable_start, etext;

namespace {

/// Which of our allocations fail, on whatever thread: the one after so many, or every so many-th.
std::atomic<long> left{-1}, every{0}, counted{0};
/// Ours that were not freed yet, their bytes, and the most that these ever were.
std::atomic<long> live{0}, bytes{0}, most{0};

struct Code {
    const char *begin = nullptr, *end = nullptr;
    bool has(const void *at) const { return at >= begin && at < end; }
};

/// Where the code of libstdc++ lies, which allocates for its callers.
Code find_libstdcpp() {
    Code out;
    dl_iterate_phdr(
        [](dl_phdr_info *info, std::size_t, void *found) {
            if (std::strstr(info->dlpi_name, "libstdc++") == nullptr) return 0;
            for (int i = 0; i < info->dlpi_phnum; ++i) {
                const auto &part = info->dlpi_phdr[i];
                if (part.p_type != PT_LOAD || (part.p_flags & PF_X) == 0) continue;
                const char *at = reinterpret_cast<const char *>(info->dlpi_addr + part.p_vaddr);
                *static_cast<Code *>(found) = {at, at + part.p_memsz};
            }
            return 1;
        },
        &out);
    return out;
}

/// Whether this program's code, the static library included, allocates: itself or by libstdc++.
bool is_ours(const void *caller) {
    static const Code ours{&__executable_start, &etext}, between = find_libstdcpp();
    if (!between.has(caller)) return ours.has(caller);
    void *frames[16];
    const int count = backtrace(frames, 16);
    int at = 0;
    while (at < count && !between.has(frames[at])) ++at;
    while (at < count && between.has(frames[at])) ++at;
    return at < count && ours.has(frames[at]);
}

bool is_to_fail() {
    const long n = every;
    if (n > 0) return ++counted % n == 0;
    return left >= 0 && left-- == 0;
}

/// Before every piece of memory.
struct alignas(16) Head {
    long size;
    bool ours;
};

thread_local bool looking = false;

void *allocate(std::size_t size, const void *caller) {
    bool ours = false;
    if (!looking) {
        looking = true;  // to find out may take memory itself
        ours = is_ours(caller);
        looking = false;
    }
    if (ours && is_to_fail()) throw std::bad_alloc();
    auto *head = static_cast<Head *>(std::malloc(sizeof(Head) + size));
    if (head == nullptr) throw std::bad_alloc();
    *head = {static_cast<long>(size), ours};
    live += ours;
    if (ours) {
        const long now = bytes += head->size;
        long before = most;
        while (before < now && !most.compare_exchange_weak(before, now)) {}
    }
    return head + 1;
}

[[gnu::noinline]] void release(void *memory) {
    if (memory == nullptr) return;
    Head *head = static_cast<Head *>(memory) - 1;
    live -= head->ours;
    if (head->ours) bytes -= head->size;
    std::free(head);
}

/// Resident memory in kB.
long resident() {
    long size = 0, pages = 0;
    std::ifstream("/proc/self/statm") >> size >> pages;
    return pages * sysconf(_SC_PAGESIZE) / 1024;
}

/// Open, make a sample on this thread and one in the queue, close; the first status not OK.
defectrt_status everything(const Image &image, const defectrt::Result &into) {
    defectrt_engine *engine = nullptr;
    defectrt_session *session = nullptr;
    defectrt_task *task = nullptr;
    defectrt_result result = into;
    defectrt_status status = defectrt_engine_create(&engine);
    const defectrt_engine_options options{sizeof options, 1, nullptr, nullptr};
    if (!status) status = defectrt_engine_open(engine, DEFECTRT_TEST_ENGINE, &options);
    if (!status) status = defectrt_session_create(engine, nullptr, &session);
    if (!status) status = defectrt_synthesize(session, &image.request, &result);
    if (!status) status = defectrt_submit(session, &image.request, -1, &task);
    if (!status) status = defectrt_task_wait(task, -1);
    if (!status) status = defectrt_task_result(task, &result);
    defectrt_task_release(task);
    defectrt_session_destroy(session);
    defectrt_engine_destroy(engine);
    return status;
}

/// What a call on a queue may say when memory runs out.
bool is_documented(defectrt_status status) {
    return status == DEFECTRT_OK || status == DEFECTRT_NO_MEMORY || status == DEFECTRT_CANCELLED;
}

/// How tasks on two workers ended.
struct Ends {
    int ok = 0, no_memory = 0;
    std::vector<defectrt_status> others;

    void add(defectrt_status status) {
        ok += status == DEFECTRT_OK;
        no_memory += status == DEFECTRT_NO_MEMORY;
        if (!is_documented(status)) others.push_back(status);
    }
};

/// A session with two workers: submit, poll, cancel, wait, read and let go, while every `n`-th
/// allocation fails, from the start or once the session is open.
void queue(const Image &image, const defectrt::Result &into, long n, bool from_the_start,
           Ends &ends) {
    defectrt_engine *engine = nullptr;
    defectrt_session *session = nullptr;
    defectrt_task *tasks[4] = {};
    defectrt_session_options options;
    defectrt_session_options_init(&options, sizeof options);
    options.workers = 2;
    const defectrt_engine_options threads{sizeof threads, 1, nullptr, nullptr};
    if (from_the_start) every = n;
    defectrt_status status = defectrt_engine_create(&engine);
    if (!status) status = defectrt_engine_open(engine, DEFECTRT_TEST_ENGINE, &threads);
    if (!status) status = defectrt_session_create(engine, &options, &session);
    ends.add(status);
    every = n;
    if (!status) {
        for (defectrt_task *&task : tasks) {
            ends.add(defectrt_submit(session, &image.request, -1, &task));
        }
        if (tasks[3] != nullptr) ends.add(defectrt_task_cancel(tasks[3]));
        for (defectrt_task *task : tasks) {
            if (task == nullptr) continue;
            defectrt_result result = into;
            char text[100];
            ends.add(defectrt_task_wait(task, -1));
            ends.add(defectrt_task_poll(task, nullptr, nullptr));
            ends.add(defectrt_task_result(task, &result));
            defectrt_task_error(task, text, sizeof text);
        }
        ends.add(defectrt_session_shutdown(session));
    }
    for (defectrt_task *task : tasks) defectrt_task_release(task);
    defectrt_session_destroy(session);
    defectrt_engine_destroy(engine);
    every = 0;
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
void operator delete(void *memory) noexcept { release(memory); }
void operator delete[](void *memory) noexcept { release(memory); }
void operator delete(void *memory, std::size_t) noexcept { release(memory); }
void operator delete[](void *memory, std::size_t) noexcept { release(memory); }

TEST(Memory, RunningOutIsAStatusWhereverItHappens) {
    const Image image;
    const defectrt::Result into(image.request);
    ASSERT_EQ(everything(image, into), DEFECTRT_OK);
    const long before = live;
    long failed = 0;
    // every one of the first, then more and more apart: there are thousands
    for (long at = 0;; at += 1 + at / 40) {
        left = at;
        const defectrt_status status = everything(image, into);
        const bool was_reached = left < 0;
        left = -1;
        if (!was_reached) break;
        ++failed;
        ASSERT_TRUE(status == DEFECTRT_NO_MEMORY || status == DEFECTRT_OK)
            << "allocation " << at << ": " << defectrt_status_name(status);
        ASSERT_EQ(live, before) << "leaked, allocation " << at;
    }
    EXPECT_GT(failed, 100);
    EXPECT_EQ(everything(image, into), DEFECTRT_OK) << "it goes on afterwards";
}

TEST(Memory, RunningOutAgainAndAgainOnWorkersIsAStatusToo) {
    const Image image;
    const defectrt::Result into(image.request);
    Ends ends;
    queue(image, into, 0, true, ends);
    ASSERT_EQ(ends.no_memory, 0);
    const long before = live;
    for (const bool from_the_start : {true, false}) {
        ends = {};
        for (long n = 1; n < 20'000; n += 1 + n / 12) {
            queue(image, into, n, from_the_start, ends);
            ASSERT_EQ(live, before) << "leaked, every " << n;
        }
        for (const defectrt_status status : ends.others) {
            ADD_FAILURE() << defectrt_status_name(status);
        }
        EXPECT_GT(ends.no_memory, 20);
        EXPECT_GT(ends.ok, 20);
    }
    ends = {};
    queue(image, into, 0, true, ends);
    EXPECT_EQ(ends.no_memory, 0) << "it goes on afterwards";
}

/// The most bytes that a sample of `size` px with a mask of `side` px takes, and what was told.
std::pair<long, defectrt_memory> taken(std::uint32_t size, std::uint32_t side, std::int32_t format,
                                       std::uint32_t candidates) {
    const defectrt::Engine engine(DEFECTRT_TEST_ENGINE, 1);
    defectrt::Session session(engine);
    std::vector<std::uint8_t> pixels(size_t{size} * size * 4, 150), mask(size_t{size} * size);
    for (std::uint32_t y = 0; y < side; ++y) std::memset(&mask[size_t{y} * size], 1, side);
    defectrt::Request request;
    request.image = {pixels.data(), 0, size, size, format, 8};
    request.mask = {mask.data(), 0};
    request.candidates = candidates;
    const defectrt_memory told = session.memory(request);
    defectrt_result result{};
    result.struct_size = sizeof result;
    const long before = bytes;
    most = before;
    defectrt_task *task = nullptr;
    EXPECT_EQ(defectrt_submit(session.get(), &request, -1, &task), DEFECTRT_OK);
    defectrt_task_wait(task, -1);
    EXPECT_LE(bytes - before, static_cast<long>(told.task)) << "of a task that has ended";
    defectrt_task_release(task);
    return {most - before, told};
}

TEST(Memory, IsWhatASessionToldBeforehand) {
    for (const auto format : {DEFECTRT_GREY, DEFECTRT_RGBA}) {
        for (const std::uint32_t candidates : {1U, 4U}) {
            for (const auto &[size, side] : {std::pair{64U, 16U}, {400U, 40U}, {300U, 200U}}) {
                const auto [peak, told] = taken(size, side, format, candidates);
                const auto bound = static_cast<long>(told.task + told.work);
                EXPECT_LE(peak, bound) << size << " " << side << " " << candidates;
                EXPECT_GT(3 * peak, bound) << size << " " << side << " " << candidates;
            }
        }
    }
}

TEST(Memory, StaysFlatOverAThousandSessions) {
    const Image image;
    const defectrt::Result into(image.request);
    defectrt_engine *engine = nullptr;
    ASSERT_EQ(defectrt_engine_create(&engine), DEFECTRT_OK);
    const defectrt_engine_options options{sizeof options, 1, nullptr, nullptr};
    long before = 0;
    for (int i = 0; i < 1000; ++i) {
        if (i == 200) before = resident();
        ASSERT_EQ(defectrt_engine_open(engine, DEFECTRT_TEST_ENGINE, &options), DEFECTRT_OK);
        defectrt_session *session = nullptr;
        ASSERT_EQ(defectrt_session_create(engine, nullptr, &session), DEFECTRT_OK);
        if (i % 50 == 0) {
            defectrt_result result = into;
            ASSERT_EQ(defectrt_synthesize(session, &image.request, &result), DEFECTRT_OK);
        }
        defectrt_session_destroy(session);
    }
    defectrt_engine_destroy(engine);
    EXPECT_LT(resident() - before, 4096) << "kB that 800 cycles left behind";
}
