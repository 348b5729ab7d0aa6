// The process ends while a session is open and tasks are running.
//
//     exit HOW ENGINE
//
// It has to end with 0 and without a word, in every way; ctest tries each several times.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include <unistd.h>

#include "support.hpp"

using namespace defectrt;

namespace {

const char *directory;

/// What is open when the process ends. Never destroyed, like a C program's.
struct State {
    Image image;
    std::unique_ptr<Engine> engine;
    std::unique_ptr<Session> session;
    defectrt_task *tasks[12] = {};
};
State &state = *new State;

/// Whether a task has got as far as its first step.
std::atomic<bool> entered{false};

[[noreturn]] void fail(const char *what) {
    std::fprintf(stderr, "%s\n", what);
    std::_Exit(1);
}

std::int32_t enter(void *, std::uint32_t, std::uint32_t) {
    entered = true;
    return 0;
}

/// The first to come ends the process.
std::int32_t leave(void *, std::uint32_t, std::uint32_t) {
    if (!entered.exchange(true)) std::exit(0);
    return 0;
}

/// A request that takes minutes.
Request request() {
    Request out = state.image.request;
    out.candidates = 10'000;
    out.progress = enter;
    return out;
}

void open() {
    state.engine = std::make_unique<Engine>(directory, 2);
    Options options;
    options.workers = 3;
    options.queue = 12;
    state.session = std::make_unique<Session>(*state.engine, options);
}

void wait_until_entered() {
    while (!entered) std::this_thread::yield();
}

/// Tasks on every worker and in the queue, the first of them under way.
void submit(const Request &wanted = request()) {
    for (defectrt_task *&task : state.tasks) {
        if (defectrt_submit(state.session->get(), &wanted, -1, &task) != DEFECTRT_OK) {
            fail("not submitted");
        }
    }
}

/// Registered before an engine is opened, so called after the library has stopped.
void expect_cancelled() {
    for (defectrt_task *task : state.tasks) {
        if (defectrt_task_wait(task, -1) != DEFECTRT_CANCELLED) fail("a task was not cancelled");
    }
    defectrt_result result{};
    result.struct_size = sizeof result;
    const Request again = request();
    if (defectrt_synthesize(state.session->get(), &again, &result) != DEFECTRT_CANCELLED) {
        fail("a call was let in");
    }
}

/// Closes all that is open after the library has stopped.
void close_late() {
    for (defectrt_task *task : state.tasks) defectrt_task_release(task);
    state.session.reset();
    state.engine.reset();
}

/// Destroyed in the middle of the process's end, when its turn comes.
struct Statics {
    ~Statics() { close_late(); }
};

int run(const char *how) {
    const auto is = [how](const char *name) { return std::strcmp(how, name) == 0; };
    if (is("cancelled")) std::atexit(expect_cancelled);
    if (is("closed-late")) std::atexit(close_late);
    if (is("static-before")) static const Statics before;
    open();
    if (is("static-after")) static const Statics after;
    if (is("exit-in-callback")) {
        Request leaving = request();
        leaving.progress = leave;
        submit(leaving);
        wait_until_entered();
        state.session.reset();  // waits for the workers, one of which ends the process
        fail("exit came back");
    }
    if (is("idle")) return 0;
    submit();
    wait_until_entered();
    if (is("exit-in-thread")) {
        std::thread([] { std::exit(0); }).detach();
        defectrt_task_wait(state.tasks[0], -1);
        while (true) pause();
    }
    if (is("synthesize")) {
        for (int i = 0; i < 2; ++i) {
            std::thread([] {
                Request own = request();
                defectrt_result result{};
                result.struct_size = sizeof result;
                while (true) defectrt_synthesize(state.session->get(), &own, &result);
            }).detach();
        }
    }
    if (is("opening")) {
        std::thread([] {
            while (true) {
                try {
                    const Engine another(directory, 1);
                } catch (const Error &) {  // the process is exiting
                }
            }
        }).detach();
    }
    return 0;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    directory = argv[2];
    return run(argv[1]);
}
