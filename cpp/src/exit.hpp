// The end of the process: nobody is inside an engine when its library is torn down.
//
// exit() runs the destructors of ONNX Runtime's (or another backend's) statics while threads of
// this library may still be working there. So it stops and waits for them first, and from then on
// nobody goes in.
#pragma once

#include <thread>

#include "stop.hpp"

namespace defectrt::internal {

/// While it lives, its thread is inside an engine, or in a caller's function.
class Call {
public:
    /// `stop` is asked if the process exits; nullptr for what cannot be stopped.
    explicit Call(Stop *stop = nullptr) noexcept;
    ~Call();
    Call(const Call &) = delete;
    Call &operator=(const Call &) = delete;

    /// False if the process is exiting: then it is too late.
    explicit operator bool() const { return entered_; }
    /// Throws Error(DEFECTRT_CANCELLED) then.
    void check() const;

private:
    friend void end_calls() noexcept;

    bool entered_ = false;
    Stop *stop_;
    std::thread::id thread_ = std::this_thread::get_id();
    Call *next_ = nullptr;
};

/// Let exit() end all calls before it tears down what has been loaded until now.
void watch_exit() noexcept;

}  // namespace defectrt::internal
