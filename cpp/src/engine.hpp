// One interface to every backend (runtime/engines/engine.py).
#pragma once

#include <array>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "manifest.hpp"
#include "stop.hpp"

namespace defectrt::internal {

using Floats = std::vector<float>;

/// One batch of row steps, z' = region · (a z + b ε_θ(z, t, prompts)) + anchor.
///
///     latent, anchor [B,C,h,w]   mask, region [B,1,h,w]   timestep, inside, outside, a, b [B]
struct Rows {
    Floats latent, mask, a, b, region, anchor;
    std::vector<std::int64_t> timestep, inside, outside;

    std::size_t batch_size() const { return timestep.size(); }
};

struct Stepped {
    Floats latent, attention;
};

/// Thread-safe: several sessions share one.
class Engine {
public:
    virtual ~Engine() = default;
    virtual const Manifest &manifest() const = 0;
    /// pixels [B,3,H,W] in [-1,1] -> scaled latents [B,C,h,w].
    virtual Floats encode(const Floats &pixels, std::size_t batch_size, Stop &stop) const = 0;
    /// Scaled latents [B,C,h,w] -> pixels [B,3,H,W], about [-1,1].
    virtual Floats decode(const Floats &latent, std::size_t batch_size, Stop &stop) const = 0;
    /// z' [B,C,h,w] and the attention [B,1,r,r].
    virtual Stepped step(const Rows &rows, Stop &stop) const = 0;
};

/// How an engine is opened.
struct Opening {
    int threads = 0;          ///< of a step; 0 for one a core
    std::string trust;        ///< fingerprints of those that may be, though they are machine code
    std::string onnxruntime;  ///< the file of ONNX Runtime; "": see load_onnxruntime
};

/// Verify an engine directory, then open it.
std::shared_ptr<const Engine> load_engine(const std::filesystem::path &directory, Opening how);

/// The graphs of an engine.
inline constexpr std::array<const char *, 3> graph_names{"encoder", "denoiser", "decoder"};

/// Refuse a manifest that does not list every graph's file, its name and the suffix.
void require_files(const std::filesystem::path &directory, const Manifest &manifest,
                   const std::string &suffix);

/// Open graphs that `verify` has already checked.
std::unique_ptr<const Engine> open_onnx(const std::filesystem::path &directory, Manifest manifest,
                                        int threads, const std::string &onnxruntime);

#ifdef DEFECTRT_EXPERIMENTAL_TENSORRT
/// Experimental, never run: open plans that `verify` has already checked and that are trusted.
std::unique_ptr<const Engine> open_tensorrt(const std::filesystem::path &directory,
                                            Manifest manifest);
#endif

#ifdef DEFECTRT_WITH_TORCH
/// Load programs that `verify` has already checked and that are trusted.
std::unique_ptr<const Engine> open_aoti(const std::filesystem::path &directory, Manifest manifest,
                                        int threads);
#endif

}  // namespace defectrt::internal
