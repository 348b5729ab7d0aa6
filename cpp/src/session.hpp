// The queue, its workers, and the tasks.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "pipeline.hpp"

namespace defectrt::internal {

/// A deadline of so many milliseconds from now; none if negative.
class Deadline {
public:
    explicit Deadline(std::int32_t timeout_ms)
        : endless_(timeout_ms < 0),
          until_(std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms)) {}

    /// Wait until the predicate holds; false if it does not by the deadline.
    template <class Predicate>
    bool wait(std::condition_variable &change, std::unique_lock<std::mutex> &lock,
              Predicate holds) const {
        if (!endless_) return change.wait_until(lock, until_, holds);
        change.wait(lock, holds);
        return true;
    }

private:
    bool endless_;
    std::chrono::steady_clock::time_point until_;
};

/// How a request ended, or DEFECTRT_PENDING.
struct End {
    defectrt_status status = DEFECTRT_PENDING;
    std::string message, record;
    Outcome outcome;
    double seconds = 0;
};

/// A request on its way, and how it ended. Thread-safe.
class Task {
public:
    Work work;
    defectrt_progress progress = nullptr;
    void *user = nullptr;
    /// The image's rows, following each other, if the task outlives its caller's buffer.
    std::vector<unsigned char> copy;
    /// Called with `user` once nobody reads the image any more, if its buffer was lent.
    defectrt_release release = nullptr;
    Stop stop;

    Task() = default;
    ~Task();
    Task(const Task &) = delete;
    Task &operator=(const Task &) = delete;

    /// Make the sample on this thread; never throws.
    void run(const Pipeline &pipeline) noexcept;
    /// End it without a sample, unless it has ended.
    void cancel_waiting() noexcept;

    defectrt_status status() const;
    defectrt_status wait(const Deadline &deadline) const;
    /// Steps done, of how many.
    std::pair<std::uint32_t, std::uint32_t> steps() const;
    std::string message() const;
    std::string record() const;
    /// How it ended; only after `status` said that it did. It does not change any more.
    const End &end() const { return end_; }

private:
    friend class Session;

    bool start() noexcept;
    void finish(End end) noexcept;
    void tell(std::uint32_t done, std::uint32_t total);

    mutable std::mutex mutex_;
    mutable std::condition_variable ended_;
    bool started_ = false;
    End end_;
    std::atomic<std::uint32_t> done_{0}, total_{0};
    Task *next_running_ = nullptr;  // the session's list, which so needs no memory
};

/// A pipeline, a bounded queue of tasks, and the threads that work on it.
class Session : public std::enable_shared_from_this<Session> {
public:
    explicit Session(Pipeline pipeline, std::size_t queue);

    const Pipeline &pipeline() const { return pipeline_; }
    /// Tasks that may wait.
    std::size_t capacity() const { return capacity_; }
    /// Threads that were started.
    std::size_t workers() const { return started_; }

    /// Start the threads; throws std::system_error after ending those that did start.
    void start(std::size_t workers);
    /// Run a task on this thread. Throws Error(DEFECTRT_CLOSED).
    void run(Task &task);
    /// Stop a task, and give its place in the queue free if it still waits.
    void cancel(const std::shared_ptr<Task> &task);
    /// Cancel everything and end the threads; false on one of them, which cannot end itself.
    bool shutdown();
    /// Cancel everything; the threads end by themselves.
    void abandon();

private:
    friend class Place;

    void work();
    void close();
    /// Note that a task runs; false if the session is closed.
    bool enter(Task &task);
    void leave(Task &task);
    /// The first of the queue, nothing if it is empty.
    std::shared_ptr<Task> next();

    Pipeline pipeline_;
    std::size_t capacity_, started_ = 0;
    std::mutex mutex_;
    std::condition_variable waiting_, room_;
    std::deque<std::shared_ptr<Task>> queue_;
    std::size_t kept_ = 0;  // places in the queue for tasks that are not there yet
    Task *running_ = nullptr;
    std::vector<std::thread> workers_;
    bool closed_ = false;
};

/// A place in a session's queue, kept for a task that is being made.
class Place {
public:
    /// Waits for it. Throws Error(DEFECTRT_BUSY) or Error(DEFECTRT_CLOSED).
    Place(Session &session, const Deadline &deadline);
    ~Place();
    Place(const Place &) = delete;
    Place &operator=(const Place &) = delete;

    /// Queue the task. Throws Error(DEFECTRT_CLOSED).
    void fill(std::shared_ptr<Task> task);

private:
    Session &session_;
};

}  // namespace defectrt::internal
