#include "exit.hpp"

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>

#include "platform.hpp"

namespace defectrt::internal {
namespace {

// Longer than an operator of an engine takes; a caller's function may never end.
constexpr std::chrono::seconds patience{10};
// What an engine loads later is torn down earlier, so it has to be watched again; but not for ever,
// since it costs memory.
constexpr int times = 16;

struct Gate {
    std::mutex mutex;
    std::condition_variable left;
    Call *calls = nullptr;
    bool closed = false;
    int watched = 0;
    long process = 0;
};

/// Never destroyed, since threads use it to the end, and no memory is needed to make it.
union Forever {
    Forever() : gate() {}
    ~Forever() {}  // NOLINT: on purpose
    Gate gate;
};

Gate &gate() {
    static Forever made;
    return made.gate;
}

}  // namespace

void end_calls() noexcept {
    Gate &all = gate();
    // a fork has none of the threads
    if (all.process != platform::process_id()) return;
    std::unique_lock<std::mutex> lock(all.mutex);
    all.closed = true;
    for (Call *call = all.calls; call != nullptr; call = call->next_) {
        if (call->stop_ != nullptr) call->stop_->ask();
    }
    const auto self = std::this_thread::get_id();
    all.left.wait_until(lock, std::chrono::steady_clock::now() + patience, [&] {
        // exit() may have been called from a caller's function
        const Call *call = all.calls;
        while (call != nullptr && call->thread_ == self) call = call->next_;
        return call == nullptr;
    });
}

Call::Call(Stop *stop) noexcept : stop_(stop) {
    Gate &all = gate();
    const std::lock_guard<std::mutex> lock(all.mutex);
    if (all.closed) return;
    next_ = all.calls;
    all.calls = this;
    entered_ = true;
}

Call::~Call() {
    if (!entered_) return;
    Gate &all = gate();
    const std::lock_guard<std::mutex> lock(all.mutex);
    for (Call **place = &all.calls; *place != nullptr; place = &(*place)->next_) {
        if (*place != this) continue;
        *place = next_;
        break;
    }
    if (all.closed) all.left.notify_all();
}

void Call::check() const {
    if (!entered_) throw Error(DEFECTRT_CANCELLED, "the process is exiting");
}

void watch_exit() noexcept {
    Gate &all = gate();
    const std::lock_guard<std::mutex> lock(all.mutex);
    if (all.watched == times) return;
    all.process = platform::process_id();
    if (std::atexit([] { end_calls(); }) == 0) ++all.watched;
}

}  // namespace defectrt::internal
