#include "session.hpp"

#include <algorithm>
#include <new>

#include "error.hpp"
#include "exit.hpp"
#include "record.hpp"

namespace defectrt::internal {

namespace {

Error closed() { return {DEFECTRT_CLOSED, "the session was shut down"}; }

}  // namespace

Task::~Task() {
    if (release == nullptr) return;
    const Call call;
    if (call) release(user);
}

bool Task::start() noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (end_.status != DEFECTRT_PENDING || started_) return false;
    return started_ = true;
}

void Task::run(const Pipeline &pipeline) noexcept {
    if (!start()) return;
    End end;
    const auto began = std::chrono::steady_clock::now();
    const auto failed = [&](defectrt_status status, const char *message) {
        end.status = status;
        try {
            end.message = message;
        } catch (...) {  // the status alone has to do
        }
    };
    try {
        end.outcome = pipeline.make(
            work, stop, [this](std::uint32_t done, std::uint32_t total) { tell(done, total); });
        end.record = internal::record(pipeline, work, end.outcome);
        end.status = DEFECTRT_OK;
    } catch (const Error &error) {
        failed(error.status(), error.what());
    } catch (const std::bad_alloc &) {
        failed(DEFECTRT_NO_MEMORY, "out of memory");
    } catch (const std::length_error &) {
        failed(DEFECTRT_NO_MEMORY, "out of memory");
    } catch (const std::exception &error) {
        failed(DEFECTRT_ERROR, error.what());
    } catch (...) {
        failed(DEFECTRT_ERROR, "an unknown exception");
    }
    end.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    finish(std::move(end));
}

void Task::tell(std::uint32_t done, std::uint32_t total) {
    done_ = done;
    total_ = total;
    stop.check();
    if (progress != nullptr) {
        const Call call;
        call.check();
        if (progress(user, done, total) != 0) stop.ask();
    }
    stop.check();
}

void Task::cancel_waiting() noexcept {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (started_ || end_.status != DEFECTRT_PENDING) return;
        started_ = true;
    }
    End end;
    end.status = DEFECTRT_CANCELLED;
    try {
        end.message = "cancelled";
    } catch (...) {  // the status alone has to do
    }
    finish(std::move(end));
}

void Task::finish(End end) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    end_ = std::move(end);
    ended_.notify_all();
}

defectrt_status Task::status() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return end_.status;
}

defectrt_status Task::wait(const Deadline &deadline) const {
    std::unique_lock<std::mutex> lock(mutex_);
    deadline.wait(ended_, lock, [this] { return end_.status != DEFECTRT_PENDING; });
    return end_.status;
}

std::pair<std::uint32_t, std::uint32_t> Task::steps() const { return {done_, total_}; }

std::string Task::message() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return end_.message;
}

std::string Task::record() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return end_.record;
}

Session::Session(Pipeline pipeline, std::size_t queue)
    : pipeline_(std::move(pipeline)), capacity_(queue) {}

void Session::start(std::size_t workers) {
    workers_.reserve(started_ = workers);
    try {
        while (workers_.size() < workers) {
            workers_.emplace_back([self = shared_from_this()] { self->work(); });
        }
    } catch (...) {
        shutdown();
        throw;
    }
}

void Session::work() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
        waiting_.wait(lock, [this] { return closed_ || !queue_.empty(); });
        if (queue_.empty()) return;
        std::shared_ptr<Task> task = std::move(queue_.front());
        queue_.pop_front();
        room_.notify_one();
        lock.unlock();
        if (enter(*task)) {
            task->run(pipeline_);
            leave(*task);
        } else {
            task->cancel_waiting();
        }
        task.reset();  // which may call the caller
        lock.lock();
    }
}

void Session::run(Task &task) {
    if (!enter(task)) throw closed();
    task.run(pipeline_);
    leave(task);
}

bool Session::enter(Task &task) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) return false;
    task.next_running_ = running_;
    running_ = &task;
    return true;
}

void Session::leave(Task &task) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (Task **place = &running_; *place != nullptr; place = &(*place)->next_running_) {
        if (*place != &task) continue;
        *place = task.next_running_;
        break;
    }
}

Place::Place(Session &session, const Deadline &deadline) : session_(session) {
    std::unique_lock<std::mutex> lock(session_.mutex_);
    const bool room = deadline.wait(session_.room_, lock, [&] {
        return session_.closed_ || session_.queue_.size() + session_.kept_ < session_.capacity_;
    });
    if (session_.closed_) throw closed();
    if (!room) throw Error(DEFECTRT_BUSY, "the queue is full");
    ++session_.kept_;
}

Place::~Place() {
    const std::lock_guard<std::mutex> lock(session_.mutex_);
    --session_.kept_;
    session_.room_.notify_one();
}

void Place::fill(std::shared_ptr<Task> task) {
    const std::lock_guard<std::mutex> lock(session_.mutex_);
    if (session_.closed_) throw closed();
    session_.queue_.push_back(std::move(task));
    session_.waiting_.notify_one();
}

void Session::cancel(const std::shared_ptr<Task> &task) {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto place = std::find(queue_.begin(), queue_.end(), task);
        if (place != queue_.end()) {
            queue_.erase(place);
            room_.notify_one();
        }
    }
    task->stop.ask();
    task->cancel_waiting();
}

void Session::close() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        closed_ = true;
        for (Task *task = running_; task != nullptr; task = task->next_running_) task->stop.ask();
        waiting_.notify_all();
        room_.notify_all();
    }
    // one by one, since this needs no memory
    while (const std::shared_ptr<Task> task = next()) task->cancel_waiting();
}

std::shared_ptr<Task> Session::next() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (queue_.empty()) return nullptr;
    std::shared_ptr<Task> task = std::move(queue_.front());
    queue_.pop_front();
    return task;
}

bool Session::shutdown() {
    std::vector<std::thread> workers;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto self = std::this_thread::get_id();
        for (const std::thread &worker : workers_) {
            if (worker.get_id() == self) return false;
        }
        workers.swap(workers_);
    }
    close();
    for (std::thread &worker : workers) worker.join();
    return true;
}

void Session::abandon() {
    close();
    const std::lock_guard<std::mutex> lock(mutex_);
    for (std::thread &worker : workers_) worker.detach();
    workers_.clear();
}

}  // namespace defectrt::internal
