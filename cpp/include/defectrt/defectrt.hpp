// defectrt for C++17: RAII and exceptions around defectrt.h, header only.
//
// The exceptions are thrown here, in the caller's program; none crosses the library's boundary.
// Threads and ownership are those of defectrt.h. A callback must not throw.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "defectrt.h"

namespace defectrt {

/// A status other than OK, with its text.
class Error : public std::runtime_error {
public:
    Error(defectrt_status status, const std::string &text)
        : std::runtime_error(text.empty() ? defectrt_status_name(status) : text),
          status_(status) {}
    defectrt_status status() const noexcept { return status_; }

private:
    defectrt_status status_;
};

namespace detail {

/// Reads what the functions of (buffer, size) have to say.
template <class Read>
std::string text(Read read) {
    std::string out(read(nullptr, 0), '\0');
    out.resize(std::min(out.size(), read(out.data(), out.size() + 1)));
    return out;
}

template <class T, void (*Free)(T *)>
struct Deleter {
    void operator()(T *handle) const noexcept { Free(handle); }
};

template <class T, void (*Free)(T *)>
using Handle = std::unique_ptr<T, Deleter<T, Free>>;

inline void check(defectrt_status status, const char *what) {
    if (status != DEFECTRT_OK) throw Error(status, what);
}

}  // namespace detail

inline std::string build_info() { return detail::text(defectrt_build_info); }

/// Options with the library's defaults.
struct Options : defectrt_session_options {
    Options() : defectrt_session_options() {
        detail::check(defectrt_session_options_init(this, sizeof(defectrt_session_options)),
                      "the library is older than its header");
    }
};

struct Request : defectrt_request {
    Request() : defectrt_request() { struct_size = sizeof(defectrt_request); }
};

/// A result with buffers of its own; rows follow each other.
class Result : public defectrt_result {
public:
    explicit Result(const Request &request) : defectrt_result() {
        std::size_t bytes = 0, pixels = 0;
        detail::check(defectrt_result_size(&request, &bytes, &pixels),
                      "the request's image or mask cannot be used");
        pixels_.resize(bytes);
        label_.resize(pixels);
        band_.resize(pixels);
        struct_size = sizeof(defectrt_result);
        defectrt_result::image = pixels_.data();
        defectrt_result::mask = label_.data();
        defectrt_result::band = band_.data();
    }
    Result(Result &&) = default;
    Result &operator=(Result &&) = default;
    Result(const Result &) = delete;
    Result &operator=(const Result &) = delete;

    const std::vector<unsigned char> &pixels() const { return pixels_; }
    const std::vector<std::uint8_t> &label() const { return label_; }
    const std::vector<std::uint8_t> &where_it_may_differ() const { return band_; }

private:
    std::vector<unsigned char> pixels_;
    std::vector<std::uint8_t> label_, band_;
};

/// An engine directory, verified and opened.
class Engine {
public:
    /// `trust` and `onnxruntime`: see defectrt_engine_options.
    explicit Engine(const std::string &directory, std::int32_t threads = 0,
                    const std::string &trust = "", const std::string &onnxruntime = "") {
        defectrt_engine *made = nullptr;
        detail::check(defectrt_engine_create(&made), "out of memory");
        handle_.reset(made);
        defectrt_engine_options options{};
        options.struct_size = sizeof options;
        options.threads = threads;
        options.trust = trust.c_str();
        options.onnxruntime = onnxruntime.c_str();
        check(defectrt_engine_open(made, directory.c_str(), &options));
    }

    defectrt_engine_info info() const {
        defectrt_engine_info out{};
        out.struct_size = sizeof out;
        check(defectrt_engine_get_info(get(), &out));
        return out;
    }

    /// Types of defect that it makes.
    std::vector<std::string> defect_types() const {
        std::vector<std::string> out;
        for (std::int32_t i = 0; i < info().defect_types; ++i) {
            out.push_back(detail::text([&](char *buffer, std::size_t size) {
                std::size_t length = 0;
                check(defectrt_engine_defect_type(get(), i, buffer, size, &length));
                return length;
            }));
        }
        return out;
    }

    defectrt_engine *get() const noexcept { return handle_.get(); }

    /// Throws what a call on this engine returned, with its text.
    void check(defectrt_status status) const {
        if (status == DEFECTRT_OK) return;
        throw Error(status, detail::text([&](char *buffer, std::size_t size) {
                        return defectrt_engine_error(get(), buffer, size);
                    }));
    }

private:
    detail::Handle<defectrt_engine, defectrt_engine_destroy> handle_;
};

/// A request on its way; letting go of it cancels it.
class Task {
public:
    explicit Task(defectrt_task *task) : handle_(task) {}

    /// PENDING, or how it ended.
    defectrt_status poll() const { return defectrt_task_poll(get(), nullptr, nullptr); }
    defectrt_status wait(std::int32_t timeout_ms = -1) const {
        return defectrt_task_wait(get(), timeout_ms);
    }
    void cancel() { defectrt_task_cancel(get()); }
    /// Copy the result out; throws how it ended if that is not OK.
    void result(defectrt_result &to) const {
        const defectrt_status status = defectrt_task_result(get(), &to);
        if (status != DEFECTRT_OK) throw Error(status, to.message);
    }
    std::string error() const {
        return detail::text([&](char *buffer, std::size_t size) {
            return defectrt_task_error(get(), buffer, size);
        });
    }

    /// One line of JSON, see defectrt_task_record.
    std::string record() const {
        return detail::text([&](char *buffer, std::size_t size) {
            return defectrt_task_record(get(), buffer, size);
        });
    }

private:
    defectrt_task *get() const noexcept { return handle_.get(); }

    detail::Handle<defectrt_task, defectrt_task_release> handle_;
};

/// One type of defect, made in one way, and its queue.
class Session {
public:
    explicit Session(const Engine &engine, const Options &options = Options()) {
        defectrt_session *made = nullptr;
        engine.check(defectrt_session_create(engine.get(), &options, &made));
        handle_.reset(made);
    }

    /// Make a sample on this thread.
    void synthesize(const Request &request, defectrt_result &result) {
        const defectrt_status status = defectrt_synthesize(get(), &request, &result);
        if (status != DEFECTRT_OK) throw Error(status, result.message);
    }

    /// What it takes, at most, if all requests are like this one.
    defectrt_memory memory(const Request &request) {
        defectrt_memory out{};
        out.struct_size = sizeof out;
        check(defectrt_session_memory(get(), &request, &out));
        return out;
    }

    /// Queue a request; nothing if the queue stays full for so long.
    std::optional<Task> submit(const Request &request, std::int32_t timeout_ms = -1) {
        defectrt_task *task = nullptr;
        const defectrt_status status = defectrt_submit(get(), &request, timeout_ms, &task);
        if (status == DEFECTRT_BUSY) return std::nullopt;
        check(status);
        return Task(task);
    }

    /// Cancel everything and end the workers.
    void shutdown() { check(defectrt_session_shutdown(get())); }

    defectrt_session *get() const noexcept { return handle_.get(); }

private:
    void check(defectrt_status status) const {
        if (status == DEFECTRT_OK) return;
        throw Error(status, detail::text([&](char *buffer, std::size_t size) {
                        return defectrt_session_error(get(), buffer, size);
                    }));
    }

    detail::Handle<defectrt_session, defectrt_session_destroy> handle_;
};

}  // namespace defectrt
