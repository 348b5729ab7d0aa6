// The boundary: every function of defectrt.h. Exceptions end here.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <system_error>

#include "defectrt/defectrt.h"
#include "error.hpp"
#include "noise.hpp"
#include "onnxruntime.hpp"
#include "session.hpp"
#include "text.hpp"
#include "view.hpp"

#ifndef DEFECTRT_VERSION_TEXT
#error "the build defines DEFECTRT_VERSION_TEXT"
#endif

namespace {

using namespace defectrt::internal;  // NOLINT: this file is the library's own

size_t copy_text(const std::string &text, char *buffer, size_t size) {
    if (buffer != nullptr && size > 0) {
        const size_t n = std::min(text.size(), size - 1);
        std::memcpy(buffer, text.data(), n);
        buffer[n] = '\0';
    }
    return text.size();
}

/// The text of the last failure on a handle.
class LastError {
public:
    void set(const char *text) noexcept {
        const std::lock_guard<std::mutex> lock(mutex_);
        try {
            text_ = text;
        } catch (...) {
            text_.clear();
        }
    }

    size_t copy(char *buffer, size_t size) const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return copy_text(text_, buffer, size);
    }

private:
    mutable std::mutex mutex_;
    std::string text_;
};

/// Runs `body` and turns what it throws into a status and a text.
template <class Body>
defectrt_status guarded(LastError *last, Body body) noexcept {
    const auto failed = [&](defectrt_status status, const char *text) {
        if (last != nullptr) last->set(text);
        return status;
    };
    try {
        body();
        return DEFECTRT_OK;
    } catch (const Error &error) {
        return failed(error.status(), error.what());
    } catch (const std::bad_alloc &) {
        return failed(DEFECTRT_NO_MEMORY, "out of memory");
    } catch (const std::length_error &) {
        return failed(DEFECTRT_NO_MEMORY, "out of memory");
    } catch (const std::system_error &error) {
        const bool threads = error.code() == std::errc::resource_unavailable_try_again;
        return threads ? failed(DEFECTRT_NO_MEMORY, "no more threads can be started")
                       : failed(DEFECTRT_ERROR, error.what());
    } catch (const std::exception &error) {
        return failed(DEFECTRT_ERROR, error.what());
    } catch (...) {
        return failed(DEFECTRT_ERROR, "an unknown exception");
    }
}

template <class T>
T &given(T *pointer, const char *name) {
    if (pointer == nullptr) throw usage_error(std::string(name) + " is NULL");
    return *pointer;
}

/// The size of a struct in revision 0 of the interface, with its padding.
template <class T>
constexpr size_t first_size = sizeof(T);
template <>
constexpr size_t first_size<defectrt_engine_options> = offsetof(defectrt_engine_options, trust);
template <>
constexpr size_t first_size<defectrt_request> = offsetof(defectrt_request, instances);
template <>
constexpr size_t first_size<defectrt_result> = offsetof(defectrt_result, strength);

/// A caller's struct as this library knows it; members that an older program does not have are 0.
template <class T>
T read_output(const T *from, const char *name) {
    const size_t size = given(from, name).struct_size;
    if (size < first_size<T>) {
        throw usage_error(std::string(name) + ": struct_size is " + std::to_string(size) +
                          ", expected at least " + std::to_string(first_size<T>));
    }
    T out{};
    std::memcpy(static_cast<void *>(&out), from, std::min(size, sizeof(T)));
    return out;
}

/// The same of a struct that asks for something: what a later version adds has to be 0.
template <class T>
T read_struct(const T *from, const char *name) {
    const T out = read_output(from, name);
    const size_t size = out.struct_size;
    const auto *bytes = reinterpret_cast<const unsigned char *>(from);
    constexpr size_t largest = 4096;
    if (size > largest || std::any_of(bytes + std::min(size, sizeof(T)), bytes + size,
                                      [](unsigned char byte) { return byte != 0; })) {
        throw usage_error(std::string(name) + ": uses what only a later library knows");
    }
    return out;
}

std::string text_of(const char *text) { return text == nullptr ? "" : text; }

/// The ONNX Runtime that nobody named, or why there is none.
std::string runtime_text() {
    try {
        const OnnxRuntime found = load_onnxruntime("");
        return "ONNX Runtime " + found.version + " in " + found.file;
    } catch (const Error &error) {
        return error.what();
    }
}

std::filesystem::path directory_path(const char *directory) {
    return std::filesystem::u8path(&given(directory, "directory"));
}

defectrt_session_options default_options() {
    defectrt_session_options out{};
    out.struct_size = sizeof out;
    out.refine_threshold = 0.5;
    out.min_change = 0.03;
    out.min_grain = 2;
    out.refine_smooth = 1;
    out.refine_min_area = 4;
    out.min_coverage = 0.25;
    out.max_leak = 1;
    out.grow = 2;
    out.feather = 4;
    out.context = 8;
    out.batch_size = 4;
    out.workers = 1;
    out.queue = 8;
    out.retries = 3;
    return out;
}

void check_options(const defectrt_session_options &o) {
    constexpr double far = 10'000;  // px
    const auto outside = [](auto value, auto low, auto high) {
        return !(value >= low && value <= high);  // NaN is outside too
    };
    const std::pair<bool, const char *> faults[] = {
        {o.steps < 0, "steps: one of the engine's, or 0"},
        {outside(o.background, DEFECTRT_NOISED, DEFECTRT_DUAL),
         "background: noised, replay or dual"},
        {outside(o.blend, DEFECTRT_RESIDUAL, DEFECTRT_DECODED), "blend: residual or decoded"},
        {outside(o.refine, DEFECTRT_REFINE_CHANGE, DEFECTRT_REFINE_NONE),
         "refine: change, attention, both or none"},
        {outside(o.refine_threshold, 0.0, 1.0), "refine_threshold: 0 to 1"},
        {outside(o.min_change, 0.0, 1.0), "min_change: 0 to 1"},
        {outside(o.min_grain, 0.0, 1e9), "min_grain: 0 to 1e9"},
        {outside(o.refine_smooth, 0.0, 1000.0), "refine_smooth: 0 to 1000 px"},
        {outside(o.min_coverage, 0.0, 1.0), "min_coverage: 0 to 1"},
        {outside(o.max_leak, 0.0, 1e9), "max_leak: 0 to 1e9"},
        {outside(o.grow, 0.0, far), "grow: 0 to 10000 px"},
        {outside(o.feather, 0.0, far), "feather: 0 to 10000 px"},
        {outside(o.context, 0, 10'000), "context: 0 to 10000 px"},
        {outside(o.batch_size, 1, 1024), "batch_size: 1 to 1024"},
        {outside(o.workers, 1, 256), "workers: 1 to 256"},
        {outside(o.queue, 1, 1'000'000), "queue: 1 to 1000000"},
        {outside(o.retries, 0, 100), "retries: 0 to 100"}};
    std::vector<std::string> found;
    for (const auto &[wrong, text] : faults) {
        if (wrong) found.emplace_back(text);
    }
    if (!found.empty()) {
        throw usage_error("the options are not possible: " + join(found, "; "));
    }
}

Settings settings_of(const defectrt_session_options &o, const Manifest &manifest) {
    Settings out;
    out.prompts = manifest.prompt_indices(
        o.defect == nullptr ? std::nullopt : std::optional<std::string>(o.defect));
    out.schedule = manifest.steps(o.steps);
    out.background = o.background;
    out.decoded = o.blend == DEFECTRT_DECODED;
    out.refinement = {o.refine,    o.refine_threshold, o.min_change,
                      o.min_grain, o.refine_smooth,    o.refine_min_area};
    out.min_coverage = o.min_coverage;
    out.max_leak = o.max_leak;
    out.grow = o.grow;
    out.feather = o.feather;
    out.context = o.context;
    out.batch_size = static_cast<std::size_t>(o.batch_size);
    out.retries = o.retries;
    return out;
}

std::size_t row_bytes(const defectrt_image &image) {
    return image.width * Layout(image.format, image.depth).pixel_bytes;
}

std::size_t bytes_of(const defectrt_image &image) { return row_bytes(image) * image.height; }

/// A request that was checked: its image, and its masks in the order of painting. No pixel has been
/// read yet.
struct Asked {
    defectrt_request request;
    std::vector<defectrt_mask> masks;
};

/// A stride of 0: rows follow each other.
void pack(std::ptrdiff_t &stride, std::size_t row) {
    if (stride == 0) stride = static_cast<std::ptrdiff_t>(row);
}

Asked asked(const defectrt_request *from) {
    Asked out{read_struct(from, "request"), {}};
    defectrt_request &r = out.request;
    if (r.instance_count >= max_instances) {
        throw usage_error("instance_count: less than " + std::to_string(max_instances));
    }
    if (r.instance_count > 0) given(r.instances, "instances");
    if (r.split != 0 && r.split != 1) throw usage_error("split: 0 or 1");
    constexpr std::uint32_t most = 10'000;
    if (r.candidates > most) throw usage_error("candidates: at most 10000");
    const auto possible = [](double strength) { return strength >= 0 && strength <= 10; };
    if (!possible(r.strength)) throw usage_error("strength: 0 to 10");
    for (std::size_t i = 0; r.strengths != nullptr && i <= r.instance_count; ++i) {
        if (!possible(r.strengths[i])) throw usage_error("strengths: 0 to 10");
    }
    pack(r.image.stride, row_bytes(r.image));
    out.masks.push_back(r.mask);
    out.masks.insert(out.masks.end(), r.instances, r.instances + r.instance_count);
    for (defectrt_mask &mask : out.masks) pack(mask.stride, r.image.width);
    pack(r.within.stride, r.image.width);
    check_view(r.image, out.masks, r.within);
    return out;
}

/// What is wanted under each mask. Throws a usage error for a type that the engine does not make.
std::vector<Wanted> wanted_of(const Pipeline &pipeline, const defectrt_request &request) {
    std::vector<Wanted> out;
    for (std::size_t i = 0; i <= request.instance_count; ++i) {
        const char *type = request.defects == nullptr ? nullptr : request.defects[i];
        out.push_back({type == nullptr ? pipeline.settings().prompts
                                       : pipeline.manifest().prompt_indices(type),
                       request.strengths == nullptr ? request.strength : request.strengths[i]});
    }
    return out;
}

/// What is to be done, once the masks have been read. The pixels are the caller's.
Work work_of(const Pipeline &pipeline, const Asked &asked, const std::vector<Wanted> &wanted) {
    check_within(asked.request.image, asked.masks, asked.request.within);
    Work out = pipeline.plan(asked.request.image, asked.masks, wanted, asked.request.split == 1);
    out.seed = asked.request.seed;
    out.candidates = std::max<std::uint32_t>(1, asked.request.candidates);
    return out;
}

std::shared_ptr<Task> task_of(const Pipeline &pipeline, const Asked &asked,
                              const std::vector<Wanted> &wanted) {
    auto task = std::make_shared<Task>();
    task->work = work_of(pipeline, asked, wanted);
    task->progress = asked.request.progress;
    task->user = asked.request.user;
    return task;
}

/// Let a task keep the image itself.
void keep_image(Task &task) {
    const defectrt_image from = task.work.image;
    const std::size_t bytes = row_bytes(from);
    task.copy.resize(bytes_of(from));
    for (std::size_t y = 0; y < from.height; ++y) {
        std::memcpy(task.copy.data() + y * bytes, image_row(from, y), bytes);
    }
    task.work.image.data = task.copy.data();
    task.work.image.stride = static_cast<std::ptrdiff_t>(bytes);
}

/// Writes a sample to its caller's buffers.
class Delivery {
public:
    Delivery(const Work &work, const defectrt_result &to)
        : work_(work), image_(work.image), layout_(image_.format, image_.depth), to_(to) {
        const std::size_t row = row_bytes(image_);
        to_.image_stride = stride(to.image_stride, row, "image");
        to_.mask_stride = stride(to.mask_stride, image_.width, "mask");
        to_.band_stride = stride(to.band_stride, image_.width, "band");
    }

    /// Throws before anything is written.
    void check_latent(std::size_t size) const {
        if (to_.latent != nullptr && to_.latent_size < size) {
            throw usage_error("latent_size: " + std::to_string(size) + " floats are needed");
        }
    }

    defectrt_result operator()(const Outcome &made) {
        if (to_.image != nullptr) write_image(made);
        write_mask(to_.mask, to_.mask_stride, made, &Patch::label);
        write_mask(to_.band, to_.band_stride, made, &Patch::band);
        if (to_.latent != nullptr) std::copy(made.latent.begin(), made.latent.end(), to_.latent);
        const Window &window = work_.instances.front().tiles.front().window;
        to_.window_y = window.y;
        to_.window_x = window.x;
        to_.window_side = window.side;
        to_.mask_area = work_.mask_area;
        to_.refined_area = made.figures.refined_area;
        to_.changed_area = made.figures.changed_area;
        to_.visibility = made.figures.visibility;
        to_.strength = made.figures.strength;
        to_.coverage = made.figures.coverage;
        to_.seam = made.figures.seam;
        to_.latent_outside_error = made.figures.latent_outside_error;
        to_.tiles = static_cast<uint32_t>(work_.tiles());
        to_.candidate = made.figures.candidate;
        to_.rejected = static_cast<uint32_t>(made.figures.rejected);
        return to_;
    }

private:
    static std::ptrdiff_t stride(std::ptrdiff_t wanted, std::size_t row, const char *name) {
        const auto least = static_cast<std::ptrdiff_t>(row);
        if (wanted == 0) return least;
        if (wanted < least && wanted > -least) {
            throw usage_error(std::string(name) + "_stride is shorter than a row");
        }
        return wanted;
    }

    void write_image(const Outcome &made) {
        auto *data = static_cast<unsigned char *>(to_.image);
        const auto row = [&](std::size_t y) {
            return data + static_cast<std::ptrdiff_t>(y) * to_.image_stride;
        };
        for (std::size_t y = 0; y < image_.height; ++y) {
            const unsigned char *from = image_row(image_, y);
            if (from != row(y)) std::memcpy(row(y), from, image_.width * layout_.pixel_bytes);
        }
        for (const Patch &patch : made.patches) {
            each(patch.window, patch.band, [&](std::size_t y, std::size_t x, std::size_t v,
                                               std::size_t u) {
                unsigned char *pixel = row(v) + u * layout_.pixel_bytes;
                for (std::size_t c = 0; c < patch.image.colours(); ++c) {
                    layout_.store(pixel, c, patch.image.at(y, x, c));
                }
            });
        }
    }

    void write_mask(std::uint8_t *data, std::ptrdiff_t stride, const Outcome &made,
                    Mask Patch::*part) const {
        if (data == nullptr) return;
        const auto row = [&](std::size_t y) {
            return data + static_cast<std::ptrdiff_t>(y) * stride;
        };
        for (std::size_t y = 0; y < image_.height; ++y) std::memset(row(y), 0, image_.width);
        for (const Patch &patch : made.patches) {
            each(patch.window, patch.*part,
                 [&](std::size_t, std::size_t, std::size_t v, std::size_t u) { row(v)[u] = 255; });
        }
    }

    /// Calls `f(y, x, row, column)` for what is set in a window and lies in the image.
    template <class F>
    void each(const Window &window, const Mask &mask, F f) const {
        const Inside inside(window, image_.height, image_.width);
        for (std::size_t y = inside.top; y < inside.bottom; ++y) {
            for (std::size_t x = inside.left; x < inside.right; ++x) {
                if (mask.at(y, x) != 0) f(y, x, place(window.y, y), place(window.x, x));
            }
        }
    }

    static std::size_t place(std::int64_t start, std::size_t i) {
        return static_cast<std::size_t>(start + static_cast<std::int64_t>(i));
    }

    const Work &work_;
    defectrt_image image_;
    Layout layout_;
    defectrt_result to_;
};

std::size_t latent_size(const Manifest &manifest) {
    const Shape &s = manifest.latent;
    return static_cast<std::size_t>(s.channels * s.height * s.width);
}

/// Runs `body`, which returns a result, and leaves either that or a message with the caller.
template <class Body>
defectrt_status deliver(LastError *last, defectrt_result *result, Body body) noexcept {
    LastError message;
    bool valid = false;
    const defectrt_status status = guarded(&message, [&] {
        defectrt_result to = read_output(result, "result");
        valid = true;
        to = body(to);
        to.message[0] = '\0';
        // buffers and strides stay the caller's, as does what an older one does not know
        constexpr size_t first = offsetof(defectrt_result, window_y);
        const size_t size = std::min(result->struct_size, sizeof to) - first;
        std::memcpy(reinterpret_cast<unsigned char *>(result) + first,
                    reinterpret_cast<const unsigned char *>(&to) + first, size);
    });
    if (status != DEFECTRT_OK) {
        char text[DEFECTRT_MESSAGE_SIZE];
        message.copy(text, sizeof text);
        if (valid) std::memcpy(result->message, text, sizeof text);
        if (last != nullptr) guarded(nullptr, [&] {
            std::string whole(message.copy(nullptr, 0) + 1, '\0');
            message.copy(whole.data(), whole.size());
            last->set(whole.c_str());
        });
    }
    return status;
}

}  // namespace

struct defectrt_engine {
    mutable std::mutex mutex;
    std::shared_ptr<const Engine> open;
    LastError error;

    std::shared_ptr<const Engine> get() const {
        const std::lock_guard<std::mutex> lock(mutex);
        if (open == nullptr) throw Error(DEFECTRT_CLOSED, "no engine is open");
        return open;
    }
};

struct defectrt_session {
    std::shared_ptr<Session> session;
    LastError error;
};

struct defectrt_task {
    std::shared_ptr<Task> task;
    std::weak_ptr<Session> session;

    void cancel() const {
        if (const auto of = session.lock()) {
            of->cancel(task);
        } else {
            task->stop.ask();
            task->cancel_waiting();
        }
    }
};

extern "C" {

const char *defectrt_status_name(int32_t status) {
    switch (status) {
        case DEFECTRT_OK: return "DEFECTRT_OK";
        case DEFECTRT_ERROR: return "DEFECTRT_ERROR";
        case DEFECTRT_USAGE: return "DEFECTRT_USAGE";
        case DEFECTRT_INPUT: return "DEFECTRT_INPUT";
        case DEFECTRT_ENGINE: return "DEFECTRT_ENGINE";
        case DEFECTRT_NOTHING_DONE: return "DEFECTRT_NOTHING_DONE";
        case DEFECTRT_NO_MEMORY: return "DEFECTRT_NO_MEMORY";
        case DEFECTRT_BUSY: return "DEFECTRT_BUSY";
        case DEFECTRT_PENDING: return "DEFECTRT_PENDING";
        case DEFECTRT_CLOSED: return "DEFECTRT_CLOSED";
        case DEFECTRT_CANCELLED: return "DEFECTRT_CANCELLED";
        default: return "unknown status";
    }
}

const char *defectrt_version(void) { return DEFECTRT_VERSION_TEXT; }

int32_t defectrt_api_version(void) { return DEFECTRT_API_VERSION; }

size_t defectrt_build_info(char *buffer, size_t size) {
    static const char backends[] = "onnx"
#ifdef DEFECTRT_WITH_TORCH
                                   " aoti"
#endif
#ifdef DEFECTRT_EXPERIMENTAL_TENSORRT
                                   " " DEFECTRT_EXPERIMENTAL_TENSORRT " (experimental, never run)"
#endif
        ;
    size_t length = 0;
    guarded(nullptr, [&] {
        length = copy_text("defectrt " DEFECTRT_VERSION_TEXT ", api " +
                               std::to_string(DEFECTRT_API_VERSION) + "." +
                               std::to_string(DEFECTRT_API_REVISION) + ", backends " + backends +
                               ", " + runtime_text() + ", compiler " DEFECTRT_COMPILER_TEXT,
                           buffer, size);
    });
    return length;
}

uint64_t defectrt_sample_seed(uint64_t seed, const char *name, uint32_t sample) {
    uint64_t own = 0;
    guarded(nullptr, [&] { own = sample_seed(seed, name == nullptr ? "" : name, sample); });
    return own;
}

defectrt_status defectrt_engine_create(defectrt_engine **engine) {
    return guarded(nullptr, [&] {
        given(engine, "engine") = nullptr;
        *engine = new defectrt_engine;
    });
}

defectrt_status defectrt_engine_open(defectrt_engine *engine, const char *directory,
                                     const defectrt_engine_options *options) {
    return guarded(engine == nullptr ? nullptr : &engine->error, [&] {
        given(engine, "engine");
        const defectrt_engine_options chosen =
            options == nullptr ? defectrt_engine_options{} : read_struct(options, "options");
        const int32_t threads = chosen.threads;
        if (threads < 0 || threads > 4096) {
            throw usage_error("threads: 1 to 4096, or 0 for all cores");
        }
        std::shared_ptr<const Engine> opened =
            load_engine(directory_path(directory),
                        {threads, text_of(chosen.trust), text_of(chosen.onnxruntime)});
        {
            const std::lock_guard<std::mutex> lock(engine->mutex);
            engine->open.swap(opened);
        }
    });
}

defectrt_status defectrt_engine_verify(defectrt_engine *engine, const char *directory) {
    return guarded(engine == nullptr ? nullptr : &engine->error, [&] {
        given(engine, "engine");
        verify(directory_path(directory));
    });
}

defectrt_status defectrt_engine_get_info(defectrt_engine *engine, defectrt_engine_info *info) {
    return guarded(engine == nullptr ? nullptr : &engine->error, [&] {
        const auto open = given(engine, "engine").get();
        const Manifest &m = open->manifest();
        defectrt_engine_info out = read_output(info, "info");
        out.format_version = format_version;
        out.window = static_cast<int32_t>(m.window(0, 0));
        out.latent_channels = static_cast<int32_t>(m.latent.channels);
        out.latent_height = static_cast<int32_t>(m.latent.height);
        out.latent_width = static_cast<int32_t>(m.latent.width);
        out.defect_types = static_cast<int32_t>(m.defect_types().size());
        out.default_steps = static_cast<int32_t>(m.default_steps);
        out.schedules = static_cast<int32_t>(m.tables.size());
        *info = out;
    });
}

defectrt_status defectrt_engine_defect_type(defectrt_engine *engine, int32_t index, char *buffer,
                                            size_t size, size_t *length) {
    return guarded(engine == nullptr ? nullptr : &engine->error, [&] {
        const auto names = given(engine, "engine").get()->manifest().defect_types();
        if (index < 0 || static_cast<size_t>(index) >= names.size()) {
            throw usage_error("index: 0 to " + std::to_string(names.size() - 1));
        }
        const size_t whole = copy_text(names[static_cast<size_t>(index)], buffer, size);
        if (length != nullptr) *length = whole;
    });
}

defectrt_status defectrt_engine_steps(defectrt_engine *engine, int32_t index, int32_t *steps) {
    return guarded(engine == nullptr ? nullptr : &engine->error, [&] {
        const auto open = given(engine, "engine").get();
        const auto &tables = open->manifest().tables;
        if (index < 0 || static_cast<size_t>(index) >= tables.size()) {
            throw usage_error("index: 0 to " + std::to_string(tables.size() - 1));
        }
        given(steps, "steps") = static_cast<int32_t>(std::next(tables.begin(), index)->first);
    });
}

size_t defectrt_engine_error(const defectrt_engine *engine, char *buffer, size_t size) {
    return engine == nullptr ? copy_text({}, buffer, size) : engine->error.copy(buffer, size);
}

void defectrt_engine_destroy(defectrt_engine *engine) { delete engine; }

defectrt_status defectrt_session_options_init(defectrt_session_options *options,
                                              size_t struct_size) {
    return guarded(nullptr, [&] {
        given(options, "options");
        if (struct_size < sizeof *options || struct_size > 4096) {
            throw usage_error("struct_size is not that of the options");
        }
        std::memset(static_cast<void *>(options), 0, struct_size);
        *options = default_options();
        options->struct_size = struct_size;
    });
}

defectrt_status defectrt_session_create(defectrt_engine *engine,
                                        const defectrt_session_options *options,
                                        defectrt_session **session) {
    if (session != nullptr) *session = nullptr;
    return guarded(engine == nullptr ? nullptr : &engine->error, [&] {
        given(session, "session");
        auto open = given(engine, "engine").get();
        const defectrt_session_options o =
            options == nullptr ? default_options() : read_struct(options, "options");
        check_options(o);
        Settings settings = settings_of(o, open->manifest());
        auto handle = std::make_unique<defectrt_session>();
        handle->session = std::make_shared<Session>(Pipeline(std::move(open), std::move(settings)),
                                                    static_cast<size_t>(o.queue));
        handle->session->start(static_cast<size_t>(o.workers));
        *session = handle.release();
    });
}

size_t defectrt_session_error(const defectrt_session *session, char *buffer, size_t size) {
    return session == nullptr ? copy_text({}, buffer, size) : session->error.copy(buffer, size);
}

defectrt_status defectrt_session_shutdown(defectrt_session *session) {
    return guarded(session == nullptr ? nullptr : &session->error, [&] {
        if (!given(session, "session").session->shutdown()) {
            throw usage_error("a progress callback cannot shut its own session down");
        }
    });
}

void defectrt_session_destroy(defectrt_session *session) {
    if (session == nullptr) return;
    guarded(nullptr, [&] {
        if (!session->session->shutdown()) session->session->abandon();
    });
    delete session;
}

defectrt_status defectrt_result_size(const defectrt_request *request, size_t *image_bytes,
                                     size_t *mask_bytes) {
    return guarded(nullptr, [&] {
        const defectrt_image image = asked(request).request.image;
        if (image_bytes != nullptr) *image_bytes = bytes_of(image);
        if (mask_bytes != nullptr) *mask_bytes = size_t{image.width} * image.height;
    });
}

defectrt_status defectrt_session_memory(defectrt_session *session,
                                        const defectrt_request *request,
                                        defectrt_memory *memory) {
    return guarded(session == nullptr ? nullptr : &session->error, [&] {
        const Session &of = *given(session, "session").session;
        defectrt_memory out = read_output(memory, "memory");
        const Asked what = asked(request);
        const Pipeline &pipeline = of.pipeline();
        const Memory needed =
            pipeline.memory(work_of(pipeline, what, wanted_of(pipeline, what.request)));
        const bool lent = what.request.release != nullptr;
        out.task = needed.kept + (lent ? 0 : bytes_of(what.request.image));
        out.work = needed.working;
        out.session = of.capacity() * out.task + of.workers() * (out.task + out.work);
        *memory = out;
    });
}

defectrt_status defectrt_synthesize(defectrt_session *session, const defectrt_request *request,
                                    defectrt_result *result) {
    return deliver(session == nullptr ? nullptr : &session->error, result,
                   [&](const defectrt_result &to) {
                       Session &of = *given(session, "session").session;
                       const Pipeline &pipeline = of.pipeline();
                       const Asked what = asked(request);
                       const auto task =
                           task_of(pipeline, what, wanted_of(pipeline, what.request));
                       Delivery delivery(task->work, to);
                       delivery.check_latent(latent_size(pipeline.manifest()));
                       of.run(*task);
                       const End &end = task->end();
                       if (end.status != DEFECTRT_OK) throw Error(end.status, end.message);
                       defectrt_result out = delivery(end.outcome);
                       out.seconds = end.seconds;
                       return out;
                   });
}

defectrt_status defectrt_submit(defectrt_session *session, const defectrt_request *request,
                                int32_t timeout_ms, defectrt_task **task) {
    if (task != nullptr) *task = nullptr;
    return guarded(session == nullptr ? nullptr : &session->error, [&] {
        given(task, "task");
        const auto &of = given(session, "session").session;
        const Asked what = asked(request);
        const std::vector<Wanted> wanted = wanted_of(of->pipeline(), what.request);
        auto handle = std::make_unique<defectrt_task>();
        Place place(*of, Deadline(timeout_ms));
        handle->task = task_of(of->pipeline(), what, wanted);
        handle->session = of;
        if (what.request.release == nullptr) keep_image(*handle->task);
        place.fill(handle->task);
        handle->task->release = what.request.release;
        *task = handle.release();
    });
}

defectrt_status defectrt_task_poll(const defectrt_task *task, uint32_t *done, uint32_t *total) {
    if (task == nullptr) return DEFECTRT_USAGE;
    const auto steps = task->task->steps();
    if (done != nullptr) *done = steps.first;
    if (total != nullptr) *total = steps.second;
    return task->task->status();
}

defectrt_status defectrt_task_wait(const defectrt_task *task, int32_t timeout_ms) {
    return task == nullptr ? DEFECTRT_USAGE : task->task->wait(Deadline(timeout_ms));
}

defectrt_status defectrt_task_cancel(defectrt_task *task) {
    return guarded(nullptr, [&] { given(task, "task").cancel(); });
}

defectrt_status defectrt_task_result(const defectrt_task *task, defectrt_result *result) {
    return deliver(nullptr, result, [&](const defectrt_result &to) {
        const Task &of = *given(task, "task").task;
        const defectrt_status status = of.status();
        if (status == DEFECTRT_PENDING) throw Error(status, "the task has not ended");
        if (status != DEFECTRT_OK) throw Error(status, of.message());
        Delivery delivery(of.work, to);
        delivery.check_latent(of.end().outcome.latent.size());
        defectrt_result out = delivery(of.end().outcome);
        out.seconds = of.end().seconds;
        return out;
    });
}

size_t defectrt_task_error(const defectrt_task *task, char *buffer, size_t size) {
    size_t length = 0;
    if (task == nullptr) return copy_text({}, buffer, size);
    guarded(nullptr, [&] { length = copy_text(task->task->message(), buffer, size); });
    return length;
}

size_t defectrt_task_record(const defectrt_task *task, char *buffer, size_t size) {
    size_t length = 0;
    if (task == nullptr) return copy_text({}, buffer, size);
    guarded(nullptr, [&] { length = copy_text(task->task->record(), buffer, size); });
    return length;
}

void defectrt_task_release(defectrt_task *task) {
    if (task == nullptr) return;
    guarded(nullptr, [&] {
        if (task->task->status() == DEFECTRT_PENDING) task->cancel();
    });
    delete task;
}

}  // extern "C"
