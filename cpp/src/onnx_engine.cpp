// The ONNX backend: three graphs on ONNX Runtime's CPU provider (runtime/engines/onnx_engine.py).
//
// The C interface is used, not ONNX Runtime's C++ one: that has to be linked, and crashes where the
// library it finds is older than its headers.
#include <algorithm>
#include <array>
#include <map>

#include "engine.hpp"
#include "error.hpp"
#include "onnxruntime.hpp"
#include "text.hpp"

namespace defectrt::internal {
namespace {

/// Releases what ONNX Runtime made.
template <class T>
class Owned {
public:
    Owned(T *what, void(ORT_API_CALL *release)(T *)) : what_(what), release_(release) {}
    ~Owned() {
        if (what_ != nullptr) release_(what_);
    }
    Owned(Owned &&other) noexcept : what_(other.what_), release_(other.release_) {
        other.what_ = nullptr;
    }
    Owned(const Owned &) = delete;
    Owned &operator=(const Owned &) = delete;
    Owned &operator=(Owned &&) = delete;

    T *get() const { return what_; }

private:
    T *what_;
    void(ORT_API_CALL *release_)(T *);
};

void check(const OrtApi &ort, OrtStatus *status, const std::string &what) {
    if (status == nullptr) return;
    const Owned<OrtStatus> owned(status, ort.ReleaseStatus);
    throw engine_error(what + ": " + ort.GetErrorMessage(status));
}

/// Calls a function whose last argument is where its new object goes.
template <class T, class Make>
Owned<T> make(const OrtApi &ort, void(ORT_API_CALL *release)(T *), const std::string &what,
              Make call) {
    T *made = nullptr;
    check(ort, call(&made), what);
    return {made, release};
}

void ORT_API_CALL say_nothing(void *, OrtLoggingLevel, const char *, const char *, const char *,
                              const char *) {}

struct Type {
    ONNXTensorElementDataType element;
    std::vector<std::int64_t> shape;  // -1 for the batch

    bool operator==(const Type &other) const {
        return element == other.element && shape == other.shape;
    }
};

using Signature = std::vector<std::pair<const char *, Type>>;

struct Graph {
    const char *name;
    Signature inputs, outputs;
};

/// Inputs and outputs of every graph, as the manifest has it.
std::array<Graph, 3> graphs(const Manifest &manifest) {
    const auto planes = [](const Shape &s) {
        return Type{ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, {-1, s.channels, s.height, s.width}};
    };
    const Type image = planes(manifest.image), latent = planes(manifest.latent);
    const Type plane = planes({1, manifest.latent.height, manifest.latent.width});
    const Type map = planes(manifest.attention);
    const Type scalar{ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, {-1}};
    const Type index{ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, {-1}};
    return {{{"encoder", {{"pixels", image}}, {{"latent", latent}}},
             {"denoiser",
              {{"latent", latent},
               {"timestep", index},
               {"mask", plane},
               {"inside", index},
               {"outside", index},
               {"a", scalar},
               {"b", scalar},
               {"region", plane},
               {"anchor", latent}},
              {{"next_latent", latent}, {"attention", map}}},
             {"decoder", {{"latent", latent}}, {{"pixels", image}}}}};
}

std::string describe(const Type &type) {
    std::vector<std::string> sides;
    for (const std::int64_t side : type.shape) {
        sides.push_back(side < 0 ? "B" : std::to_string(side));
    }
    const bool floats = type.element == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    const bool integers = type.element == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    return std::string(floats ? "float" : integers ? "int64" : "another type") + " (" +
           join(sides, ", ") + ")";
}

/// A graph that was opened, and its shapes for a batch.
class Session {
public:
    Session(const OrtApi &ort, const OrtEnv *env, const std::filesystem::path &path,
            const OrtSessionOptions *options, const Graph &graph)
        : ort_(ort), graph_(graph),
          session_(make<OrtSession>(ort, ort.ReleaseSession,
                                    path.u8string() + ": ONNX Runtime cannot open the graph",
                                    [&](OrtSession **out) {
                                        return ort.CreateSession(env, path.c_str(), options, out);
                                    })),
          memory_(make<OrtMemoryInfo>(ort, ort.ReleaseMemoryInfo, "memory",
                                      [&](OrtMemoryInfo **out) {
                                          return ort.CreateCpuMemoryInfo(
                                              OrtArenaAllocator, OrtMemTypeDefault, out);
                                      })) {
        std::vector<std::string> faults;
        compare("input", found(true), graph_.inputs, faults);
        compare("output", found(false), graph_.outputs, faults);
        if (!faults.empty()) {
            throw engine_error(path.u8string() + ": not the graph of this manifest: " +
                               join(faults, "; "));
        }
    }

    /// `inputs` and `outputs` in the order of the graph's; the outputs have the right sizes.
    void run(const std::vector<const void *> &inputs, const std::vector<Floats *> &outputs,
             std::size_t batch_size, Stop &stop) const {
        const std::string what = std::string(graph_.name) + ": ONNX Runtime failed";
        std::vector<Owned<OrtValue>> owned;
        std::vector<OrtValue *> in, out;
        std::vector<const char *> in_names, out_names;
        for (std::size_t i = 0; i < inputs.size(); ++i) {
            in_names.push_back(graph_.inputs[i].first);
            // the interface has no const, and does not write to inputs
            owned.push_back(
                value(graph_.inputs[i].second, const_cast<void *>(inputs[i]), batch_size, what));
            in.push_back(owned.back().get());
        }
        for (std::size_t i = 0; i < outputs.size(); ++i) {
            const Type &type = graph_.outputs[i].second;
            out_names.push_back(graph_.outputs[i].first);
            outputs[i]->resize(elements(type, batch_size));
            owned.push_back(value(type, outputs[i]->data(), batch_size, what));
            out.push_back(owned.back().get());
        }
        const auto options = make<OrtRunOptions>(
            ort_, ort_.ReleaseRunOptions, what,
            [&](OrtRunOptions **made) { return ort_.CreateRunOptions(made); });
        check(ort_, ort_.RunOptionsSetRunLogSeverityLevel(options.get(), ORT_LOGGING_LEVEL_FATAL),
              what);
        Interrupt interrupt{&ort_, options.get()};
        OrtStatus *status = nullptr;
        {
            const Stop::Scope scope(stop, Interrupt::call, &interrupt);
            status = ort_.Run(session_.get(), options.get(), in_names.data(), in.data(), in.size(),
                              out_names.data(), out.size(), out.data());
        }
        const Owned<OrtStatus> failed(status, ort_.ReleaseStatus);
        stop.check();
        if (status != nullptr) throw engine_error(what + ": " + ort_.GetErrorMessage(status));
    }

private:
    struct Interrupt {
        const OrtApi *ort;
        OrtRunOptions *options;

        static void call(void *self) {
            const auto *it = static_cast<Interrupt *>(self);
            const Owned<OrtStatus> ignored(it->ort->RunOptionsSetTerminate(it->options),
                                           it->ort->ReleaseStatus);
        }
    };

    static std::size_t elements(const Type &type, std::size_t batch_size) {
        std::size_t count = 1;
        for (const std::int64_t side : type.shape) {
            count *= side < 0 ? batch_size : static_cast<std::size_t>(side);
        }
        return count;
    }

    Owned<OrtValue> value(const Type &type, void *data, std::size_t batch_size,
                          const std::string &what) const {
        std::vector<std::int64_t> shape = type.shape;
        shape[0] = static_cast<std::int64_t>(batch_size);
        const std::size_t bytes =
            elements(type, batch_size) *
            (type.element == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 ? sizeof(std::int64_t)
                                                                 : sizeof(float));
        return make<OrtValue>(ort_, ort_.ReleaseValue, what, [&](OrtValue **out) {
            return ort_.CreateTensorWithDataAsOrtValue(memory_.get(), data, bytes, shape.data(),
                                                       shape.size(), type.element, out);
        });
    }

    /// What the graph itself says about its inputs or outputs.
    std::map<std::string, Type> found(bool inputs) const {
        const std::string what = std::string(graph_.name) + ": ONNX Runtime failed";
        OrtAllocator *allocator = nullptr;
        check(ort_, ort_.GetAllocatorWithDefaultOptions(&allocator), what);
        std::size_t count = 0;
        check(ort_, (inputs ? ort_.SessionGetInputCount : ort_.SessionGetOutputCount)(
                        session_.get(), &count), what);
        std::map<std::string, Type> out;
        for (std::size_t i = 0; i < count; ++i) {
            char *text = nullptr;
            check(ort_, (inputs ? ort_.SessionGetInputName : ort_.SessionGetOutputName)(
                            session_.get(), i, allocator, &text), what);
            std::string name;
            try {
                name = text;
            } catch (...) {
                allocator->Free(allocator, text);
                throw;
            }
            allocator->Free(allocator, text);
            const auto info = make<OrtTypeInfo>(
                ort_, ort_.ReleaseTypeInfo, what, [&](OrtTypeInfo **made) {
                    return (inputs ? ort_.SessionGetInputTypeInfo
                                   : ort_.SessionGetOutputTypeInfo)(session_.get(), i, made);
                });
            out[name] = type_of(info.get(), what);
        }
        return out;
    }

    Type type_of(const OrtTypeInfo *info, const std::string &what) const {
        Type out{ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED, {}};
        const OrtTensorTypeAndShapeInfo *tensor = nullptr;
        check(ort_, ort_.CastTypeInfoToTensorInfo(info, &tensor), what);
        if (tensor == nullptr) return out;
        check(ort_, ort_.GetTensorElementType(tensor, &out.element), what);
        std::size_t rank = 0;
        check(ort_, ort_.GetDimensionsCount(tensor, &rank), what);
        out.shape.resize(rank);
        check(ort_, ort_.GetDimensions(tensor, out.shape.data(), rank), what);
        return out;
    }

    static void compare(const char *kind, const std::map<std::string, Type> &found,
                        const Signature &wanted, std::vector<std::string> &faults) {
        std::map<std::string, Type> left = found;
        for (const auto &[name, type] : wanted) {
            const auto it = left.find(name);
            const bool there = it != left.end();
            if (there && it->second == type) {
                left.erase(it);
                continue;
            }
            faults.push_back(std::string(kind) + " " + name + ": " +
                             (there ? describe(it->second) : "missing") + ", the manifest says " +
                             describe(type));
            if (there) left.erase(it);
        }
        for (const auto &[name, type] : left) {
            faults.push_back(std::string(kind) + " " + quote(name) + ": " + describe(type) +
                             ", the manifest says nothing");
        }
    }

    const OrtApi &ort_;
    Graph graph_;
    Owned<OrtSession> session_;
    Owned<OrtMemoryInfo> memory_;
};

class OnnxEngine final : public Engine {
public:
    OnnxEngine(const std::filesystem::path &directory, Manifest manifest, int threads,
               const std::string &onnxruntime)
        : manifest_(std::move(manifest)), ort_(load_onnxruntime(onnxruntime).api),
          env_(make<OrtEnv>(ort_, ort_.ReleaseEnv, "ONNX Runtime cannot start",
                            [&](OrtEnv **out) {
                                return ort_.CreateEnv(ORT_LOGGING_LEVEL_FATAL, "defectrt", out);
                            })) {
        require_files(directory, manifest_, ".onnx");
        const auto all = graphs(manifest_);
        const auto options = make<OrtSessionOptions>(
            ort_, ort_.ReleaseSessionOptions, "ONNX Runtime cannot start",
            [&](OrtSessionOptions **out) { return ort_.CreateSessionOptions(out); });
        const char *what = "ONNX Runtime refuses an option";
        check(ort_, ort_.SetSessionLogSeverityLevel(options.get(), ORT_LOGGING_LEVEL_FATAL), what);
        check(ort_, ort_.SetUserLoggingFunction(options.get(), say_nothing, nullptr), what);
        check(ort_, ort_.SetIntraOpNumThreads(options.get(), threads), what);
        // A thread that waits sleeps: where cores are shared, one that spins keeps others from them.
        check(ort_,
              ort_.AddSessionConfigEntry(options.get(), "session.intra_op.allow_spinning", "0"),
              what);
        sessions_.reserve(all.size());
        for (const Graph &graph : all) {
            sessions_.emplace_back(ort_, env_.get(),
                                   directory / (std::string(graph.name) + ".onnx"), options.get(),
                                   graph);
        }
    }

    const Manifest &manifest() const override { return manifest_; }

    Floats encode(const Floats &pixels, std::size_t batch_size, Stop &stop) const override {
        Floats latent;
        sessions_[0].run({pixels.data()}, {&latent}, batch_size, stop);
        return latent;
    }

    Stepped step(const Rows &rows, Stop &stop) const override {
        Stepped out;
        sessions_[1].run({rows.latent.data(), rows.timestep.data(), rows.mask.data(),
                          rows.inside.data(), rows.outside.data(), rows.a.data(), rows.b.data(),
                          rows.region.data(), rows.anchor.data()},
                         {&out.latent, &out.attention}, rows.batch_size(), stop);
        return out;
    }

    Floats decode(const Floats &latent, std::size_t batch_size, Stop &stop) const override {
        Floats pixels;
        sessions_[2].run({latent.data()}, {&pixels}, batch_size, stop);
        return pixels;
    }

private:
    Manifest manifest_;
    const OrtApi &ort_;
    Owned<OrtEnv> env_;
    std::vector<Session> sessions_;
};

}  // namespace

std::unique_ptr<const Engine> open_onnx(const std::filesystem::path &directory, Manifest manifest,
                                        int threads, const std::string &onnxruntime) {
    return std::make_unique<OnnxEngine>(directory, std::move(manifest), threads, onnxruntime);
}

}  // namespace defectrt::internal
