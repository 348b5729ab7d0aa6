// How a caller stops a run that is on its way.
#pragma once

#include <atomic>
#include <mutex>

#include "error.hpp"

namespace defectrt::internal {

class Stop {
public:
    /// From any thread; also interrupts what the engine is doing.
    void ask() {
        asked_ = true;
        const std::lock_guard<std::mutex> lock(mutex_);
        if (interrupt_ != nullptr) interrupt_(what_);
    }

    bool asked() const { return asked_; }

    void check() const {
        if (asked_) throw Error(DEFECTRT_CANCELLED, "cancelled");
    }

    /// While it lives, `ask` calls `interrupt(what)`.
    class Scope {
    public:
        Scope(Stop &stop, void (*interrupt)(void *), void *what) : stop_(stop) {
            const std::lock_guard<std::mutex> lock(stop_.mutex_);
            stop_.check();
            stop_.interrupt_ = interrupt;
            stop_.what_ = what;
        }
        ~Scope() {
            const std::lock_guard<std::mutex> lock(stop_.mutex_);
            stop_.interrupt_ = nullptr;
        }
        Scope(const Scope &) = delete;
        Scope &operator=(const Scope &) = delete;

    private:
        Stop &stop_;
    };

private:
    std::atomic<bool> asked_{false};
    std::mutex mutex_;
    void (*interrupt_)(void *) = nullptr;
    void *what_ = nullptr;
};

}  // namespace defectrt::internal
