#include "engine.hpp"

#include <algorithm>
#include <cmath>

#include "cores.hpp"
#include "error.hpp"
#include "exit.hpp"
#include "text.hpp"
#include "trust.hpp"

namespace defectrt::internal {
namespace {

/// What a graph gave is as large as the manifest says, and finite.
void check_output(const char *what, const Floats &values, std::size_t batch_size,
                  const Shape &shape) {
    const auto size = static_cast<std::size_t>(shape.channels * shape.height * shape.width);
    const char *fault = nullptr;
    if (values.size() != batch_size * size) fault = " has another size";
    if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) {
        fault = " has values that are not finite";
    }
    if (fault != nullptr) {
        throw engine_error(std::string(what) + fault + "; not what its manifest promises");
    }
}

/// An engine that nobody enters once the process is exiting, and whose outputs are checked.
class Watched final : public Engine {
public:
    explicit Watched(std::unique_ptr<const Engine> engine) : engine_(std::move(engine)) {}
    ~Watched() override {
        const Call call;
        // what it would need to let go is no longer there
        if (!call) (void)engine_.release();
        engine_.reset();
    }
    Watched(const Watched &) = delete;
    Watched &operator=(const Watched &) = delete;

    const Manifest &manifest() const override { return engine_->manifest(); }

    Floats encode(const Floats &pixels, std::size_t batch_size, Stop &stop) const override {
        const Call call(&stop);
        call.check();
        Floats latent = engine_->encode(pixels, batch_size, stop);
        check_output("encoder: latent", latent, batch_size, manifest().latent);
        return latent;
    }
    Floats decode(const Floats &latent, std::size_t batch_size, Stop &stop) const override {
        const Call call(&stop);
        call.check();
        Floats pixels = engine_->decode(latent, batch_size, stop);
        check_output("decoder: pixels", pixels, batch_size, manifest().image);
        return pixels;
    }
    Stepped step(const Rows &rows, Stop &stop) const override {
        const Call call(&stop);
        call.check();
        Stepped made = engine_->step(rows, stop);
        check_output("denoiser: next_latent", made.latent, rows.batch_size(), manifest().latent);
        check_output("denoiser: attention", made.attention, rows.batch_size(),
                     {1, manifest().attention.height, manifest().attention.width});
        return made;
    }

private:
    std::unique_ptr<const Engine> engine_;
};

std::unique_ptr<const Engine> open(const std::filesystem::path &directory, Manifest manifest,
                                   const Opening &how) {
    if (manifest.backend == "onnx") {
        return open_onnx(directory, std::move(manifest), how.threads, how.onnxruntime);
    }
#ifdef DEFECTRT_WITH_TORCH
    if (manifest.backend == "aoti") {
        require_trust(directory, manifest, how.trust);
        return open_aoti(directory, std::move(manifest), how.threads);
    }
#endif
#ifdef DEFECTRT_EXPERIMENTAL_TENSORRT
    if (manifest.backend == DEFECTRT_EXPERIMENTAL_TENSORRT) {
        require_trust(directory, manifest, how.trust);
        return open_tensorrt(directory, std::move(manifest));
    }
#endif
    throw engine_error(directory.u8string() + ": this build does not run the backend " +
                       quote(manifest.backend));
}

}  // namespace

void require_files(const std::filesystem::path &directory, const Manifest &manifest,
                   const std::string &suffix) {
    std::vector<std::string> missing;
    for (const char *graph : graph_names) {
        const std::string file = graph + suffix;
        if (manifest.files.count(file) == 0) missing.push_back("no " + file);
    }
    if (!missing.empty()) {
        throw engine_error(directory.u8string() + ": the manifest lists " + join(missing, ", "));
    }
}

std::shared_ptr<const Engine> load_engine(const std::filesystem::path &directory, Opening how) {
    how.threads = threads_of(how.threads);
    Manifest manifest = verify(directory);
    const Call call;
    call.check();
    auto engine = std::make_shared<Watched>(open(directory, std::move(manifest), how));
    watch_exit();
    return engine;
}

}  // namespace defectrt::internal
