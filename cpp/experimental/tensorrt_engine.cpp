// EXPERIMENTAL: the TensorRT and TensorRT-RTX backends, plans on one card
// (runtime/engines/tensorrt_engine.py).
//
// Compiled in CI, never run: no machine of this project has such a card.
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>

#include "digest.hpp"
#include "engine.hpp"
#include "error.hpp"
#include "text.hpp"

namespace defectrt::internal {
namespace {

namespace fs = std::filesystem;

constexpr const char *suffix =
    std::string_view(DEFECTRT_EXPERIMENTAL_TENSORRT) == "tensorrt-rtx" ? ".engine" : ".plan";

void check(cudaError_t status, const char *what) {
    if (status != cudaSuccess) {
        throw engine_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
    }
}

/// Remembers the last error and prints nothing.
class Log final : public nvinfer1::ILogger {
public:
    void log(Severity severity, const char *message) noexcept override {
        if (severity > Severity::kERROR) return;
        const std::lock_guard<std::mutex> lock(mutex_);
        try {
            last_ = std::string(message).substr(0, 500);
        } catch (...) {  // the status alone has to do
        }
    }

    std::string last() const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return last_.empty() ? "it does not say why" : last_;
    }

private:
    mutable std::mutex mutex_;
    std::string last_;
};

/// Memory on the card.
class Buffer {
public:
    explicit Buffer(std::size_t bytes) { check(cudaMalloc(&data_, bytes), "allocate"); }
    ~Buffer() { cudaFree(data_); }
    Buffer(Buffer &&other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;
    Buffer &operator=(Buffer &&) = delete;

    void *get() const { return data_; }

private:
    void *data_ = nullptr;
};

class Stream {
public:
    Stream() { check(cudaStreamCreate(&stream_), "make a stream"); }
    ~Stream() { cudaStreamDestroy(stream_); }
    Stream(const Stream &) = delete;
    Stream &operator=(const Stream &) = delete;

    cudaStream_t get() const { return stream_; }

private:
    cudaStream_t stream_ = nullptr;
};

/// An array of a plan: of rows of a shape, float32 or int64.
struct Array {
    const char *name;
    bool enters, whole;
    std::vector<std::int64_t> shape;

    std::size_t row_bytes() const {
        std::size_t bytes = whole ? sizeof(std::int64_t) : sizeof(float);
        for (const std::int64_t side : shape) bytes *= static_cast<std::size_t>(side);
        return bytes;
    }

    nvinfer1::Dims dims(std::int64_t batch_size) const {
        nvinfer1::Dims out{};
        out.nbDims = static_cast<std::int32_t>(shape.size()) + 1;
        out.d[0] = batch_size;
        std::copy(shape.begin(), shape.end(), out.d + 1);
        return out;
    }
};

struct Graph {
    const char *name;
    std::vector<Array> arrays;
};

/// Inputs and outputs of every plan, as the manifest has it.
std::array<Graph, 3> graphs(const Manifest &manifest) {
    const auto planes = [](const Shape &s) {
        return std::vector<std::int64_t>{s.channels, s.height, s.width};
    };
    const auto image = planes(manifest.image), latent = planes(manifest.latent);
    const auto plane = planes({1, manifest.latent.height, manifest.latent.width});
    const auto in = [](const char *name, const std::vector<std::int64_t> &shape,
                       bool whole = false) { return Array{name, true, whole, shape}; };
    const auto out = [](const char *name, const std::vector<std::int64_t> &shape) {
        return Array{name, false, false, shape};
    };
    return {{{"encoder", {in("pixels", image), out("latent", latent)}},
             {"denoiser",
              {in("latent", latent), in("timestep", {}, true), in("mask", plane),
               in("inside", {}, true), in("outside", {}, true), in("a", {}), in("b", {}),
               in("region", plane), in("anchor", latent), out("next_latent", latent),
               out("attention", planes(manifest.attention))}},
             {"decoder", {in("latent", latent), out("pixels", image)}}}};
}

bool same(const nvinfer1::Dims &a, const nvinfer1::Dims &b) {
    return a.nbDims == b.nbDims && std::equal(a.d, a.d + a.nbDims, b.d);
}

/// The bytes that were checked: between `verify` and now the file could have been another.
std::vector<char> read_file(const fs::path &path, const FileEntry &entry) {
    std::vector<char> bytes(static_cast<std::size_t>(entry.size));
    std::ifstream file(path, std::ios::binary);
    file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    Sha256 digest;
    digest.update(bytes.data(), bytes.size());
    if (!file || digest.hex() != entry.sha256) {
        throw engine_error(path.u8string() + " changed while it was opened");
    }
    return bytes;
}

/// A plan with its context and, for its most rows, its buffers on the card.
class Plan {
public:
    Plan(nvinfer1::IRuntime &runtime, const fs::path &path, const FileEntry &entry,
         const Graph &graph, const Log &log)
        : name_(graph.name), arrays_(graph.arrays), log_(log) {
        const std::vector<char> bytes = read_file(path, entry);
        engine_.reset(runtime.deserializeCudaEngine(bytes.data(), bytes.size()));
        if (engine_ == nullptr) {
            throw engine_error(path.u8string() +
                               ": this version of TensorRT does not open the plan: " + log.last());
        }
        require_signature(path);
        const auto most = engine_->getProfileShape(arrays_.front().name, 0,
                                                   nvinfer1::OptProfileSelector::kMAX);
        if (most.nbDims < 1 || most.d[0] < 1) {
            throw engine_error(path.u8string() + ": the plan has no profile for its rows");
        }
        most_ = static_cast<std::size_t>(most.d[0]);
        if (engine_->getStreamableWeightsSize() > 0) {  // built for weights that stay in the host
            engine_->setWeightStreamingBudgetV2(engine_->getWeightStreamingAutomaticBudget());
        }
        context_.reset(engine_->createExecutionContext());
        if (context_ == nullptr) {
            throw engine_error("no room for the engine on the card: " + log.last());
        }
        for (const Array &array : arrays_) {
            buffers_.emplace_back(most_ * array.row_bytes());
            if (!context_->setTensorAddress(array.name, buffers_.back().get())) refuse();
        }
    }

    /// Inputs, then outputs, in the order of the graph; the outputs get the right sizes.
    void run(const std::vector<const void *> &inputs, const std::vector<Floats *> &outputs,
             std::size_t batch_size, const Stream &stream, Stop &stop) {
        for (std::size_t i = 0; i < outputs.size(); ++i) {
            const Array &array = arrays_[inputs.size() + i];
            outputs[i]->resize(batch_size * array.row_bytes() / sizeof(float));
        }
        for (std::size_t first = 0; first < batch_size; first += most_) {
            stop.check();
            part(inputs, outputs, first, std::min(most_, batch_size - first), stream.get());
        }
    }

private:
    [[noreturn]] void refuse() const {
        throw engine_error(std::string(name_) + ": TensorRT failed: " + log_.last());
    }

    void part(const std::vector<const void *> &inputs, const std::vector<Floats *> &outputs,
              std::size_t first, std::size_t batch_size, cudaStream_t stream) {
        for (std::size_t i = 0; i < inputs.size(); ++i) {
            const std::size_t row = arrays_[i].row_bytes();
            if (!context_->setInputShape(arrays_[i].name,
                                         arrays_[i].dims(static_cast<std::int64_t>(batch_size)))) {
                refuse();
            }
            check(cudaMemcpyAsync(buffers_[i].get(),
                                  static_cast<const char *>(inputs[i]) + first * row,
                                  batch_size * row, cudaMemcpyHostToDevice, stream),
                  "copy to the card");
        }
        if (!context_->enqueueV3(stream)) refuse();
        for (std::size_t i = 0; i < outputs.size(); ++i) {
            const std::size_t at = inputs.size() + i, row = arrays_[at].row_bytes();
            check(cudaMemcpyAsync(reinterpret_cast<char *>(outputs[i]->data()) + first * row,
                                  buffers_[at].get(), batch_size * row, cudaMemcpyDeviceToHost,
                                  stream),
                  "copy from the card");
        }
        check(cudaStreamSynchronize(stream), "run");
    }

    /// A plan with other inputs and outputs would read and write past the buffers.
    void require_signature(const fs::path &path) const {
        std::vector<std::string> faults;
        if (engine_->getNbIOTensors() != static_cast<std::int32_t>(arrays_.size())) {
            faults.emplace_back("the number of its inputs and outputs");
        }
        for (const Array &array : arrays_) {
            const auto mode = array.enters ? nvinfer1::TensorIOMode::kINPUT
                                           : nvinfer1::TensorIOMode::kOUTPUT;
            const auto type = array.whole ? nvinfer1::DataType::kINT64 : nvinfer1::DataType::kFLOAT;
            if (engine_->getTensorIOMode(array.name) != mode ||
                engine_->getTensorDataType(array.name) != type ||
                !same(engine_->getTensorShape(array.name), array.dims(-1))) {
                faults.emplace_back(array.name);
            }
        }
        if (!faults.empty()) {
            throw engine_error(path.u8string() +
                               ": not the plan of this manifest: " + join(faults, ", "));
        }
    }

    const char *name_;
    std::vector<Array> arrays_;
    const Log &log_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    std::vector<Buffer> buffers_;
    std::size_t most_ = 0;
};

/// Compute capability of the first card, as 89.
std::string capability(const fs::path &directory) {
    int cards = 0, major = 0, minor = 0;
    if (cudaGetDeviceCount(&cards) != cudaSuccess || cards == 0) {
        throw engine_error(directory.u8string() + ": the engine needs an NVIDIA card; there is none");
    }
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "ask the card");
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0), "ask the card");
    return std::to_string(10 * major + minor);
}

void require_card(const fs::path &directory, const Manifest &manifest) {
    const std::string here = capability(directory);
    const auto wanted =
        manifest.target ? manifest.target->capabilities : std::vector<std::string>();
    if (std::find(wanted.begin(), wanted.end(), here) == wanted.end()) {
        throw engine_error(directory.u8string() + ": the engine is for compute capability " +
                           join(wanted, ", ") + ", the card here has " + here +
                           "; build it with --compute-capability " + here);
    }
}

/// A card does one call at a time.
class TensorRtEngine final : public Engine {
public:
    TensorRtEngine(const fs::path &directory, Manifest manifest) : manifest_(std::move(manifest)) {
        require_files(directory, manifest_, suffix);
        const auto all = graphs(manifest_);
        require_card(directory, manifest_);
        stream_.emplace();
        runtime_.reset(nvinfer1::createInferRuntime(log_));
        if (runtime_ == nullptr) throw engine_error("TensorRT cannot start: " + log_.last());
        plans_.reserve(all.size());
        for (const Graph &graph : all) {
            const std::string file = std::string(graph.name) + suffix;
            plans_.emplace_back(*runtime_, directory / file, manifest_.files.at(file), graph, log_);
        }
    }

    const Manifest &manifest() const override { return manifest_; }

    Floats encode(const Floats &pixels, std::size_t batch_size, Stop &stop) const override {
        Floats latent;
        run(0, {pixels.data()}, {&latent}, batch_size, stop);
        return latent;
    }

    Stepped step(const Rows &rows, Stop &stop) const override {
        Stepped out;
        run(1,
            {rows.latent.data(), rows.timestep.data(), rows.mask.data(), rows.inside.data(),
             rows.outside.data(), rows.a.data(), rows.b.data(), rows.region.data(),
             rows.anchor.data()},
            {&out.latent, &out.attention}, rows.batch_size(), stop);
        return out;
    }

    Floats decode(const Floats &latent, std::size_t batch_size, Stop &stop) const override {
        Floats pixels;
        run(2, {latent.data()}, {&pixels}, batch_size, stop);
        return pixels;
    }

private:
    void run(std::size_t plan, const std::vector<const void *> &inputs,
             const std::vector<Floats *> &outputs, std::size_t batch_size, Stop &stop) const {
        const std::lock_guard<std::mutex> lock(mutex_);
        stop.check();
        // the current card is a thread's own
        check(cudaSetDevice(0), "choose the card");
        plans_[plan].run(inputs, outputs, batch_size, *stream_, stop);
        stop.check();
    }

    Manifest manifest_;
    mutable std::mutex mutex_;
    Log log_;
    std::optional<Stream> stream_;
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    mutable std::vector<Plan> plans_;
};

}  // namespace

std::unique_ptr<const Engine> open_tensorrt(const fs::path &directory, Manifest manifest) {
    return std::make_unique<TensorRtEngine>(directory, std::move(manifest));
}

}  // namespace defectrt::internal
