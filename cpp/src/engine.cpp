#include "engine.hpp"

#include "error.hpp"
#include "exit.hpp"
#include "text.hpp"
#include "trust.hpp"

namespace defectrt::internal {
namespace {

/// An engine that nobody enters once the process is exiting.
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
        return engine_->encode(pixels, batch_size, stop);
    }
    Floats decode(const Floats &latent, std::size_t batch_size, Stop &stop) const override {
        const Call call(&stop);
        call.check();
        return engine_->decode(latent, batch_size, stop);
    }
    Stepped step(const Rows &rows, Stop &stop) const override {
        const Call call(&stop);
        call.check();
        return engine_->step(rows, stop);
    }

private:
    std::unique_ptr<const Engine> engine_;
};

std::unique_ptr<const Engine> open(const std::filesystem::path &directory, Manifest manifest,
                                   int threads, [[maybe_unused]] const std::string &trust) {
    if (manifest.backend == "onnx") return open_onnx(directory, std::move(manifest), threads);
#ifdef DEFECTRT_WITH_TORCH
    if (manifest.backend == "aoti") {
        require_trust(directory, manifest, trust);
        return open_aoti(directory, std::move(manifest), threads);
    }
#endif
#ifdef DEFECTRT_EXPERIMENTAL_TENSORRT
    if (manifest.backend == DEFECTRT_EXPERIMENTAL_TENSORRT) {
        require_trust(directory, manifest, trust);
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

std::shared_ptr<const Engine> load_engine(const std::filesystem::path &directory, int threads,
                                          const std::string &trust) {
    Manifest manifest = verify(directory);
    const Call call;
    call.check();
    auto engine = std::make_shared<Watched>(open(directory, std::move(manifest), threads, trust));
    watch_exit();
    return engine;
}

}  // namespace defectrt::internal
