// The method on one image: encode, invert once, generate candidates, decode, keep the best
// (runtime/synthesis/pipeline.py).
#pragma once

#include <functional>
#include <memory>
#include <set>

#include "engine.hpp"
#include "refinement.hpp"
#include "sampler.hpp"
#include "tiles.hpp"

namespace defectrt::internal {

/// What a session makes of every image.
struct Settings {
    Prompts prompts{};
    Schedule schedule;
    std::int32_t background = DEFECTRT_NOISED;
    bool decoded = false;
    Refinement refinement{};
    double min_coverage = 0, max_leak = 0, grow = 0, feather = 0;
    std::int64_t context = 0;
    std::size_t batch_size = 1;
    std::int32_t retries = 0;

    bool noised() const { return background == DEFECTRT_NOISED; }
    bool dual() const { return background == DEFECTRT_DUAL; }
};

/// What is asked for under a mask: a type, and its strength, or 0 for as strong as it comes.
struct Wanted {
    Prompts prompts{};
    double strength = 0;
};

/// A defect to be painted.
struct Planned : Wanted {
    std::vector<Tile> tiles;
};

/// An image whose memory somebody else holds, every defect to paint on it, and the numbers.
struct Work {
    defectrt_image image{};
    std::vector<Planned> instances;
    std::int64_t mask_area = 0;
    std::uint64_t seed = 0;
    std::uint32_t candidates = 1;

    std::size_t tiles() const;
};

/// What became of a tile: `reason` says why it was not painted, if so.
struct TileFigures {
    Window window;
    std::uint32_t candidate = 0;
    std::int64_t area = 0;
    double score = 0, visibility = 0, strength = 0, coverage = 0, seam = 0, latent_outside_error = 0;
    std::string reason;
};

/// A tile that was painted: what the image, the label and the band are in its window.
struct Patch {
    Window window;
    Bits image;
    Mask label, band;
};

struct Figures {
    std::int64_t refined_area = 0, changed_area = 0, rejected = 0;
    double visibility = 0, strength = 0, coverage = 0, seam = 0, latent_outside_error = 0;
    std::uint32_t candidate = 0;
};

/// A sample: its image is the source with the patches over it, one after the other.
struct Outcome {
    std::vector<Patch> patches;
    std::vector<TileFigures> tiles;
    Floats latent;
    Figures figures;
};

/// Bytes, at most: of a request and its result, and what working on it takes besides. The engine's own
/// are not counted, nor the image.
struct Memory {
    std::uint64_t kept = 0, working = 0;
};

/// Told how many steps of how many are done; throws to stop.
using Progress = std::function<void(std::uint32_t done, std::uint32_t total)>;

/// An engine set up for a session. Thread-safe.
class Pipeline {
public:
    /// Throws an engine error for a window that is no square of three channels.
    Pipeline(std::shared_ptr<const Engine> engine, Settings settings);

    const Manifest &manifest() const { return engine_->manifest(); }
    const Settings &settings() const { return settings_; }

    /// The tiles that paint masks one after the other, and what is wanted of each; with `split`,
    /// every piece of a mask that lies far from the others is an instance of its own. Throws an input
    /// error if one is empty.
    Work plan(const defectrt_image &image, const std::vector<defectrt_mask> &masks,
              const std::vector<Wanted> &wanted, bool split) const;

    Memory memory(const Work &work) const;

    /// The best candidate of every tile. Throws Error(DEFECTRT_NOTHING_DONE) if none of an
    /// instance's is fit.
    Outcome make(const Work &work, Stop &stop, const Progress &progress) const;

private:
    std::shared_ptr<const Engine> engine_;
    Settings settings_;
};

/// Rows and columns of a window that lie inside its image: [begin, end) in the window.
struct Inside {
    Inside(const Window &window, std::size_t height, std::size_t width);
    bool holds(std::size_t y, std::size_t x) const {
        return y >= top && y < bottom && x >= left && x < right;
    }
    std::size_t top, bottom, left, right;
};

}  // namespace defectrt::internal
