#include "pipeline.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "error.hpp"
#include "noise.hpp"
#include "strength.hpp"
#include "text.hpp"
#include "view.hpp"

namespace defectrt::internal {
namespace {

// A defect this strong, or covering this much of its mask, counts in full.
constexpr double strong = 0.2, covering = 0.5;

std::size_t size_of(std::int64_t side) { return static_cast<std::size_t>(side); }

/// Counts the steps of a request.
class Counter {
public:
    Counter(const Progress &progress, std::size_t total)
        : progress_(progress), total_(static_cast<std::uint32_t>(total)) {}
    void operator()() { progress_(++done_, total_); }
    void expect(std::size_t more) { total_ += static_cast<std::uint32_t>(more); }

private:
    const Progress &progress_;
    std::uint32_t done_ = 0, total_;
};

Pixels difference(const Pixels &after, const Pixels &before) {
    Pixels out = after;
    for (std::size_t i = 0; i < out.values.size(); ++i) out.values[i] -= before.values[i];
    return out;
}

/// The largest channel's change, [S,S].
Pixels largest(const Pixels &change) {
    Pixels out(change.height, change.width);
    for (std::size_t i = 0; i < out.values.size(); ++i) {
        const float *c = change.values.data() + 3 * i;
        out.values[i] = std::max({std::abs(c[0]), std::abs(c[1]), std::abs(c[2])});
    }
    return out;
}

/// [S,S,C] -> [S,S] in [0,1], without alpha.
Pixels grey(const Bits &image) {
    Pixels out(image.height, image.width);
    const auto colours = static_cast<float>(image.colours()), top = static_cast<float>(image.top);
    for (std::size_t i = 0; i < out.values.size(); ++i) {
        const std::uint16_t *c = image.values.data() + image.channels * i;
        out.values[i] = std::accumulate(c, c + image.colours(), 0.0F) / colours / top;
    }
    return out;
}

/// A mean of what was added.
class Mean {
public:
    void add(float value) { sum_ += static_cast<double>(value), ++count_; }
    std::int64_t count() const { return count_; }
    double value() const { return count_ > 0 ? sum_ / static_cast<double>(count_) : 0; }

private:
    double sum_ = 0;
    std::int64_t count_ = 0;
};

/// A background: z_0 [C,h,w], its trajectory, and what z_0 decodes to [3,h,w].
struct Inverted {
    Floats latent;
    std::vector<Floats> path;
    Floats decoded;
};

/// A tile as it could be; `reason` says why it is not fit, if so.
struct Candidate {
    std::uint32_t number = 0;
    Pixels change;
    Mask label;
    double visibility = 0, strength = 0, coverage = 0, seam = 0, drift = 0, score = 0;
    double shown = 0;
    std::int64_t area = 0;
    std::string reason;
    Floats latent;

    bool is_better(const Candidate &other) const {
        if (reason.empty() != other.reason.empty()) return reason.empty();
        return score > other.score;
    }
};

/// What the model sees of an image for a tile, and what a result does to it.
class View {
public:
    /// `wanted` is the defect's strength; 0 for as strong as the model paints it.
    View(Bits seen, const Tile &of, const Inside &inside, const Settings &settings,
         const Manifest &manifest, double wanted)
        : tile(of), image(std::move(seen)),
          pixels(to_model(image, size_of(manifest.image.height))),
          weight(feather(of.mask, settings.grow, settings.feather)), inside_(inside),
          settings_(settings), manifest_(manifest), wanted_(wanted), grey_(grey(image)),
          around_(brightness_around(grey_, tile.mask, shown_of(inside))) {}

    /// origin, before and after [3,h,w] are decoded, attention is [r,r].
    Candidate assess(const float *origin, const float *before, const float *after,
                     const float *attention) const {
        const Pixels result = as_shown(after), good = as_shown(origin);
        Candidate out;
        const Pixels known = as_shown(settings_.decoded ? pixels.data() : before);
        out.change = difference(result, known);
        Pixels map(size_of(manifest_.attention.height), size_of(manifest_.attention.width));
        std::copy_n(attention, map.values.size(), map.values.begin());
        const Mask shown = appeared(tile.mask, good, result, settings_.refinement);
        out.label = refine(tile.mask, map, shown, settings_.refinement);
        measure(out, shown, largest(difference(result, good)));
        if (manifest_.sees_whole() && out.reason.empty()) leave_out_lost(out, known);
        strengthen(out);
        return out;
    }

    /// The tile, painted.
    Patch paint(const Candidate &candidate) const {
        Patch out{tile.window, composite(image, candidate.change, weight), candidate.label,
                  Mask(tile.mask.height, tile.mask.width)};
        std::transform(weight.values.begin(), weight.values.end(), out.band.values.begin(),
                       [](float w) { return w > 0 ? 1 : 0; });
        return out;
    }

    const Tile &tile;
    const Bits image;
    const Floats pixels;
    const Pixels weight;

private:
    Pixels as_shown(const float *planes) const {
        return from_model(planes, size_of(manifest_.image.height), size_of(manifest_.image.width),
                          size_of(tile.window.side));
    }

    /// What is mirrored beyond the image counts nowhere.
    void measure(Candidate &out, const Mask &shown, const Pixels &amount) const {
        const Pixels changed = largest(out.change);
        Mean visible, fading;
        std::int64_t asked = 0, seen = 0;
        for (std::size_t y = 0; y < weight.height; ++y) {
            for (std::size_t x = 0; x < weight.width; ++x) {
                if (!inside_.holds(y, x)) {
                    out.label.at(y, x) = 0;
                    continue;
                }
                asked += tile.mask.at(y, x);
                seen += shown.at(y, x);
                if (out.label.at(y, x) != 0) visible.add(amount.at(y, x));
                const float w = weight.at(y, x);
                if (w > 0 && w < 1) fading.add(changed.at(y, x));
            }
        }
        out.area = visible.count();
        out.visibility = visible.value();
        out.seam = fading.value();
        out.coverage = static_cast<double>(out.area) / static_cast<double>(asked);
        out.shown = static_cast<double>(seen) / static_cast<double>(asked);
        out.score = score(out);
        out.reason = fault(out);
    }

    /// Leave out what of the image is not known to the model, where a defect is.
    ///
    /// It is too fine for the model's window. Were it left there, a part that is gone would leave
    /// its edges behind.
    void leave_out_lost(Candidate &out, const Pixels &known) const {
        const std::size_t side = size_of(tile.window.side);
        const Pixels sharp = from_model(to_model(image, side).data(), side, side, side);
        const Pixels lost = difference(sharp, known);
        const double px =
            static_cast<double>(side) / static_cast<double>(manifest_.image.height);
        const Pixels there = feather(out.label, px, px);
        for (std::size_t i = 0; i < out.change.values.size(); ++i) {
            out.change.values[i] -= lost.values[i] * there.values[i / 3];
        }
    }

    /// Give a defect the strength that is wanted; whether it is fit was told before.
    void strengthen(Candidate &out) const {
        Pixels moved(weight.height, weight.width);
        for (std::size_t i = 0; i < moved.values.size(); ++i) {
            const float *c = out.change.values.data() + 3 * i;
            moved.values[i] = weight.values[i] * ((c[0] + c[1] + c[2]) / 3);
        }
        const auto [factor, strength] = strengthened(grey_, moved, out.label, around_, wanted_,
                                                     settings_.refinement.min_change);
        for (float &value : out.change.values) value *= factor;
        out.visibility *= static_cast<double>(factor);
        out.seam *= static_cast<double>(factor);
        out.strength = strength;
    }

    /// What of the window lies inside the image.
    Mask shown_of(const Inside &inside) const {
        Mask out(weight.height, weight.width);
        for (std::size_t y = 0; y < out.height; ++y) {
            for (std::size_t x = 0; x < out.width; ++x) out.at(y, x) = inside.holds(y, x) ? 1 : 0;
        }
        return out;
    }

    static double score(const Candidate &c) {
        if (c.visibility <= 0) return 0;
        return std::min(1.0, c.visibility / strong) * std::min(1.0, c.coverage / covering) *
               (1 - std::min(1.0, c.seam / c.visibility));
    }

    std::string fault(const Candidate &c) const {
        const double shown = std::min(c.shown, c.coverage);
        if (shown == 0) return "no defect appeared";
        if (!manifest_.sees_whole() && shown < settings_.min_coverage) {
            return "it covers too little of its mask";
        }
        if (c.seam > settings_.max_leak * c.visibility &&
            settings_.refinement.method != DEFECTRT_REFINE_NONE) {
            return "it leaks: its border changed more than itself";
        }
        return "";
    }

    const Inside inside_;
    const Settings &settings_;
    const Manifest &manifest_;
    const double wanted_;
    const Pixels grey_;
    const double around_;
};

/// A good image on which defects are being painted.
class Canvas {
public:
    explicit Canvas(const defectrt_image &source) : source_(source) {}

    Inside inside(const Window &window) const {
        return {window, source_.height, source_.width};
    }

    bool is_untouched(const Window &window) const {
        bool touched = false;
        overlay(window, [&](std::size_t, std::size_t, const Patch &, std::size_t, std::size_t) {
            touched = true;
        });
        return !touched;
    }

    Bits crop(const Window &window) const {
        Bits out = internal::crop(source_, window);
        overlay(window, [&](std::size_t y, std::size_t x, const Patch &patch, std::size_t v,
                            std::size_t u) {
            std::copy_n(&patch.image.at(v, u), out.channels, &out.at(y, x));
        });
        return out;
    }

    void paint(Patch patch) { patches.push_back(std::move(patch)); }

    /// Whether any of an instance became label.
    bool shows(const std::vector<Tile> &instance) const {
        return std::any_of(instance.begin(), instance.end(), [&](const Tile &tile) {
            return std::any_of(patches.begin(), patches.end(), [&](const Patch &patch) {
                return shows(tile, patch);
            });
        });
    }

    /// Pixels of the label, and pixels that differ from the source.
    void areas(Figures &figures) const {
        for (std::size_t i = 0; i < patches.size(); ++i) {
            const Patch &patch = patches[i];
            const Bits before = internal::crop(source_, patch.window);
            const Inside part = inside(patch.window);
            for (std::size_t y = part.top; y < part.bottom; ++y) {
                for (std::size_t x = part.left; x < part.right; ++x) {
                    const auto [row, column] = place(patch.window, y, x);
                    if (patch.label.at(y, x) != 0 && !labelled(0, i, row, column)) {
                        ++figures.refined_area;
                    }
                    const auto *a = &patch.image.at(y, x), *b = &before.at(y, x);
                    if (patch.band.at(y, x) != 0 && !std::equal(a, a + before.channels, b) &&
                        !painted(i + 1, row, column)) {
                        ++figures.changed_area;
                    }
                }
            }
        }
    }

    std::vector<Patch> patches;

private:
    bool shows(const Tile &tile, const Patch &patch) const {
        const Inside part = inside(patch.window);
        for (std::size_t y = part.top; y < part.bottom; ++y) {
            for (std::size_t x = part.left; x < part.right; ++x) {
                if (patch.label.at(y, x) == 0) continue;
                const auto [row, column] = place(patch.window, y, x);
                if (value(tile.window, tile.mask, row, column) != 0) return true;
            }
        }
        return false;
    }

    static std::pair<std::int64_t, std::int64_t> place(const Window &window, std::size_t y,
                                                       std::size_t x) {
        return {window.y + static_cast<std::int64_t>(y), window.x + static_cast<std::int64_t>(x)};
    }

    static std::uint8_t value(const Window &window, const Mask &mask, std::int64_t row,
                              std::int64_t column) {
        const std::int64_t y = row - window.y, x = column - window.x;
        const bool there = y >= 0 && y < window.side && x >= 0 && x < window.side;
        return there ? mask.at(size_of(y), size_of(x)) : std::uint8_t{0};
    }

    bool labelled(std::size_t from, std::size_t to, std::int64_t row, std::int64_t column) const {
        for (std::size_t i = from; i < to; ++i) {
            if (value(patches[i].window, patches[i].label, row, column) != 0) return true;
        }
        return false;
    }

    bool painted(std::size_t from, std::int64_t row, std::int64_t column) const {
        for (std::size_t i = from; i < patches.size(); ++i) {
            if (value(patches[i].window, patches[i].band, row, column) != 0) return true;
        }
        return false;
    }

    /// Calls `f(y, x, patch, v, u)` for what a window shows of every patch's band, in order.
    template <class F>
    void overlay(const Window &window, F f) const {
        for (const Patch &patch : patches) {
            for (std::size_t y = 0; y < size_of(window.side); ++y) {
                const auto row = static_cast<std::int64_t>(Window::mirrored(
                    window.y, static_cast<std::int64_t>(y), source_.height));
                const std::int64_t v = row - patch.window.y;
                if (v < 0 || v >= patch.window.side) continue;
                for (std::size_t x = 0; x < size_of(window.side); ++x) {
                    const auto column = static_cast<std::int64_t>(Window::mirrored(
                        window.x, static_cast<std::int64_t>(x), source_.width));
                    const std::int64_t u = column - patch.window.x;
                    if (u < 0 || u >= patch.window.side) continue;
                    if (patch.band.at(size_of(v), size_of(u)) == 0) continue;
                    f(y, x, patch, size_of(v), size_of(u));
                }
            }
        }
    }

    const defectrt_image &source_;
};

/// Pixels that are set in any of the masks.
std::int64_t area(const defectrt_image &image, const std::vector<defectrt_mask> &masks) {
    std::int64_t out = 0;
    std::vector<std::uint8_t> any(image.width);
    for (std::int64_t y = 0; y < std::int64_t{image.height}; ++y) {
        std::fill(any.begin(), any.end(), std::uint8_t{0});
        for (const defectrt_mask &mask : masks) {
            const std::uint8_t *row = mask_row(mask, y);
            for (std::size_t x = 0; x < any.size(); ++x) any[x] |= row[x];
        }
        out += image.width - std::count(any.begin(), any.end(), 0);
    }
    return out;
}

/// The largest change of a latent outside the mask.
double drift(const Floats &mask, const float *latent, const Floats &z0) {
    float worst = 0;
    for (std::size_t i = 0; i < z0.size(); ++i) {
        worst = std::max(worst, std::abs((1 - mask[i % mask.size()]) * (latent[i] - z0[i])));
    }
    return static_cast<double>(worst);
}

/// One request on its way through the engine.
class Run {
public:
    Run(const Engine &engine, const Settings &settings, const Work &work, Stop &stop,
        const Progress &progress)
        : engine_(engine), settings_(settings), work_(work), stop_(stop),
          tick_(progress, work.tiles() * settings.schedule.generation.size() *
                              (!settings.noised() + chunks() * (1 + settings.dual()))),
          canvas_(work.image) {}

    Outcome operator()() {
        std::set<std::string> reasons;
        Outcome out;
        Figures &f = out.figures;
        std::size_t number = 0, missing = 0;
        for (const Planned &instance : work_.instances) {
            for (const Tile &each : instance.tiles) {
                Candidate best = tile(each, instance, number++, reasons, f.rejected);
                out.tiles.push_back(figures(each, best));
                if (!best.reason.empty()) continue;
                f.visibility += best.visibility * static_cast<double>(best.area);
                weights_ += static_cast<double>(best.area);
                f.seam = std::max(f.seam, best.seam);
                f.strength = std::max(f.strength, best.strength);
                f.latent_outside_error = std::max(f.latent_outside_error, best.drift);
                f.candidate = best.number;
                out.latent = std::move(best.latent);
            }
            missing += !canvas_.shows(instance.tiles);
        }
        if (missing > 0) refuse(missing, reasons);
        f.visibility /= weights_;
        canvas_.areas(f);
        f.coverage = static_cast<double>(f.refined_area) / static_cast<double>(work_.mask_area);
        out.patches = std::move(canvas_.patches);
        return out;
    }

private:
    std::size_t chunks() const {
        return (work_.candidates + settings_.batch_size - 1) / settings_.batch_size;
    }

    [[noreturn]] void refuse(std::size_t missing, const std::set<std::string> &reasons) const {
        std::string why = join({reasons.begin(), reasons.end()}, ", ");
        if (work_.instances.size() > 1) {
            why = std::to_string(missing) + " of " + std::to_string(work_.instances.size()) +
                  " instances: " + why;
        }
        throw Error(DEFECTRT_NOTHING_DONE, why);
    }

    static TileFigures figures(const Tile &tile, const Candidate &c) {
        return {tile.window, c.number,   c.area, c.score, c.visibility,
                c.strength,  c.coverage, c.seam, c.drift, c.reason};
    }

    /// The best candidate of one tile, which is painted if it is fit.
    Candidate tile(const Tile &tile, const Wanted &wanted, std::size_t number,
                   std::set<std::string> &reasons, std::int64_t &rejected) {
        const Manifest &manifest = engine_.manifest();
        const Inside inside = canvas_.inside(tile.window);
        const View view(canvas_.crop(tile.window), tile, inside, settings_, manifest,
                        wanted.strength);
        const Scene scene{engine_, settings_.schedule, wanted.prompts,
                          reduce_mask(tile.mask, size_of(manifest.latent.height),
                                      size_of(manifest.latent.width))};
        const Inverted inverted = invert(scene, view);
        Floats origin;
        if (!canvas_.is_untouched(tile.window)) {
            const Floats first = to_model(crop(work_.image, tile.window),
                                          size_of(manifest.image.height));
            origin = engine_.decode(engine_.encode(first, 1, stop_), 1, stop_);
        }
        const float *untouched = origin.empty() ? inverted.decoded.data() : origin.data();
        std::optional<Candidate> best;
        std::uint32_t first = 0;
        for (std::int32_t round = 0; round <= settings_.retries; ++round) {
            if (round > 0) {
                if (best->reason.empty()) break;
                tick_.expect(settings_.schedule.generation.size() * chunks() *
                             (1 + settings_.dual()));
            }
            for (const std::uint32_t end = first + work_.candidates; first < end;) {
                const std::size_t batch_size =
                    std::min<std::size_t>(settings_.batch_size, end - first);
                for (Candidate &candidate : chunk(scene, view, inverted, untouched, number, first,
                                                  batch_size)) {
                    if (!candidate.reason.empty()) ++rejected, reasons.insert(candidate.reason);
                    if (!best || candidate.is_better(*best)) best = std::move(candidate);
                }
                first += static_cast<std::uint32_t>(batch_size);
            }
        }
        if (best->reason.empty()) canvas_.paint(view.paint(*best));
        return std::move(*best);
    }

    Inverted invert(const Scene &scene, const View &view) {
        Inverted out;
        out.latent = engine_.encode(view.pixels, 1, stop_);
        if (!settings_.noised()) {
            out.path = internal::invert(scene, out.latent, stop_, std::ref(tick_));
        }
        out.decoded = engine_.decode(out.latent, 1, stop_);
        return out;
    }

    std::vector<Candidate> chunk(const Scene &scene, const View &view, const Inverted &inverted,
                                 const float *origin, std::size_t tile, std::uint32_t first,
                                 std::size_t batch_size) {
        const std::size_t size = inverted.latent.size(), pixels = inverted.decoded.size();
        Floats noise(batch_size * size);
        for (std::size_t i = 0; i < batch_size; ++i) {
            normal(work_.seed, tile, first + static_cast<std::uint32_t>(i),
                   noise.data() + i * size, size);
        }
        const Generated made = generate(
            scene, settings_.noised() ? noised(scene, inverted.latent, noise) : inverted.path, noise,
            batch_size, settings_.dual(), stop_, std::ref(tick_));
        const Floats after = engine_.decode(made.latent, batch_size, stop_);
        const std::size_t map = made.attention.size() / batch_size;
        std::vector<Candidate> out;
        for (std::size_t i = 0; i < batch_size; ++i) {
            const float *z = made.latent.data() + i * size;
            out.push_back(view.assess(origin, inverted.decoded.data(), after.data() + i * pixels,
                                      made.attention.data() + i * map));
            out.back().number = first + static_cast<std::uint32_t>(i);
            out.back().latent.assign(z, z + size);
            out.back().drift = drift(scene.mask, z, inverted.latent);
        }
        return out;
    }

    const Engine &engine_;
    const Settings &settings_;
    const Work &work_;
    Stop &stop_;
    Counter tick_;
    Canvas canvas_;
    double weights_ = 0;
};

}  // namespace

Inside::Inside(const Window &window, std::size_t height, std::size_t width) {
    const auto begin = [](std::int64_t start) { return size_of(std::max<std::int64_t>(0, -start)); };
    const auto end = [&](std::int64_t start, std::size_t size) {
        return size_of(std::min(window.side, static_cast<std::int64_t>(size) - start));
    };
    top = begin(window.y), bottom = end(window.y, height);
    left = begin(window.x), right = end(window.x, width);
}

Pipeline::Pipeline(std::shared_ptr<const Engine> engine, Settings settings)
    : engine_(std::move(engine)), settings_(std::move(settings)) {
    const Shape &image = engine_->manifest().image;
    if (image.height != image.width || image.channels != 3) {
        throw engine_error("the engine's window is not a square of 3 channels");
    }
}

std::size_t Work::tiles() const {
    return std::accumulate(instances.begin(), instances.end(), std::size_t{0},
                           [](std::size_t n, const Planned &one) { return n + one.tiles.size(); });
}

Work Pipeline::plan(const defectrt_image &image, const std::vector<defectrt_mask> &masks,
                    const std::vector<Wanted> &wanted, bool split) const {
    const auto band = static_cast<std::int64_t>(std::ceil(settings_.grow + settings_.feather));
    const bool whole = manifest().sees_whole();
    const std::int64_t window = manifest().window(image.height, image.width);
    const std::int64_t scale = manifest().magnify == 1 ? 2 : 1;
    const std::int64_t context =
        whole ? 0 : std::max(settings_.context / manifest().magnify, band);
    const std::int64_t gap = std::max(window / 4, 2 * band + 1);
    Work out;
    out.image = image;
    for (std::size_t i = 0; i < masks.size(); ++i) {
        const auto instances = split && !whole ? pieces(image, masks[i], gap, max_instances)
                                     : std::vector<Instance>{Instance(image, masks[i])};
        for (const Instance &instance : instances) {
            out.instances.push_back({wanted[i], cut(image, instance, window, context, scale)});
        }
        if (instances.empty() || out.instances.back().tiles.empty()) {
            throw input_error(mask_name(i) + " is empty");
        }
    }
    out.mask_area = area(image, masks);
    return out;
}

Memory Pipeline::memory(const Work &work) const {
    const Manifest &m = manifest();
    const auto elements = [](const Shape &s) {
        return static_cast<std::uint64_t>(s.channels * s.height * s.width);
    };
    const std::uint64_t channels = Layout(work.image.format, work.image.depth).channels;
    const std::uint64_t batch = std::min<std::uint64_t>(settings_.batch_size, work.candidates);
    const std::uint64_t latent = 4 * elements(m.latent), pixels = 4 * elements(m.image);
    std::uint64_t side = 0, shown = 0;
    for (const Planned &instance : work.instances) {
        for (const Tile &tile : instance.tiles) {
            const auto of = static_cast<std::uint64_t>(tile.window.side);
            side = std::max(side, of);
            shown += of * of;
        }
    }
    // rows whose background is kept at every step
    const std::uint64_t path = settings_.noised() ? batch : 1;
    constexpr std::uint64_t small = 1 << 16;
    // of a px: a mask, then the painted window, its label and its band
    const std::uint64_t kept = 3 + 2 * channels;
    // of a px: the window, the change and label of each candidate and the best, what assesses one
    const std::uint64_t seen = 4 * channels + 13 * (batch + 1) + 110;
    Memory out;
    // lists that grow are up to three times as long for a moment; the record is less than 1 kB a tile
    constexpr std::uint64_t listed = 3 * (sizeof(Tile) + sizeof(Patch) + sizeof(TileFigures)) + 1024;
    out.kept = shown * kept + work.tiles() * listed + latent + small;
    out.working = side * side * seen + pixels * (batch + 6) +
                  12 * side * static_cast<std::uint64_t>(m.image.height) +
                  latent * (path * (settings_.schedule.generation.size() + 1) + 12 * batch) +
                  12 * elements(m.attention) * batch + small;
    return out;
}

Outcome Pipeline::make(const Work &work, Stop &stop, const Progress &progress) const {
    return Run(*engine_, settings_, work, stop, progress)();
}

}  // namespace defectrt::internal
