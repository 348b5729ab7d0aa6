#include "strength.hpp"

#include <algorithm>
#include <cmath>

namespace defectrt::internal {
namespace {

// Px from a mask up to which, and from which on, nothing is its surroundings.
constexpr std::size_t near = 2, far = 8;
// Share of a defect's px beyond what counts as furthest.
constexpr double beyond = 0.05;
// Brightness that counts as black.
constexpr double black = 1e-3;
// A change is multiplied by this much at most; halvings of the interval of the factor.
constexpr double most = 2.0;
constexpr int halvings = 12;

using Values = std::vector<float>;

double median(Values values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    const float upper = *middle;
    if (values.size() % 2 == 1) return static_cast<double>(upper);
    const float lower = *std::max_element(values.begin(), middle);
    return static_cast<double>((lower + upper) / 2);
}

/// The mask and all within a square around each of its px.
Mask grown(const Mask &mask, std::size_t by) {
    Mask rows(mask.height, mask.width), out(mask.height, mask.width);
    for (std::size_t y = 0; y < mask.height; ++y) {
        for (std::size_t x = 0; x < mask.width; ++x) {
            if (mask.at(y, x) == 0) continue;
            const std::size_t end = std::min(mask.width, x + by + 1);
            std::fill(&rows.at(y, x - std::min(x, by)), &rows.at(y, 0) + end, std::uint8_t{1});
        }
    }
    for (std::size_t y = 0; y < mask.height; ++y) {
        const std::size_t end = std::min(mask.height, y + by + 1);
        for (std::size_t to = y - std::min(y, by); to < end; ++to) {
            for (std::size_t x = 0; x < mask.width; ++x) out.at(to, x) |= rows.at(y, x);
        }
    }
    return out;
}

/// Weber's contrast on one side.
double contrast(Values values, double around, bool dark) {
    auto place = static_cast<std::size_t>(beyond * static_cast<double>(values.size() - 1));
    if (!dark) place = values.size() - 1 - place;
    const auto at = values.begin() + static_cast<std::ptrdiff_t>(place);
    std::nth_element(values.begin(), at, values.end());
    const auto level = static_cast<double>(*at);
    return (dark ? around - level : level - around) / std::max(around, black);
}

double strength(const Values &values, double around) {
    return std::max(contrast(values, around, true), contrast(values, around, false));
}

/// The px of a defect before it was painted, and its change.
struct Painted {
    Values before, change;

    Values at(float factor) const {
        Values out = before;
        for (std::size_t i = 0; i < out.size(); ++i) {
            out[i] = std::clamp(out[i] + factor * change[i], 0.0F, 1.0F);
        }
        return out;
    }

    Values unclipped() const {
        Values out = before;
        for (std::size_t i = 0; i < out.size(); ++i) out[i] += change[i];
        return out;
    }

    double mean() const {
        double sum = 0;
        for (const float value : change) sum += static_cast<double>(std::abs(value));
        return sum / static_cast<double>(change.size());
    }
};

/// By how much to multiply a change so that a defect is as strong as wanted, or nearly.
double times(const Painted &painted, double around, double wanted, double least) {
    const Values all = painted.unclipped();
    const bool dark = contrast(all, around, true) >= contrast(all, around, false);
    const auto at = [&](double factor) {
        return contrast(painted.at(static_cast<float>(factor)), around, dark);
    };
    double low = std::min(least, most), high = most;
    if (at(low) >= wanted) return low;
    for (int i = 0; i < halvings; ++i) {
        const double middle = (low + high) / 2;
        (at(middle) <= wanted ? low : high) = middle;
    }
    return low;
}

}  // namespace

double brightness_around(const Pixels &grey, const Mask &mask, const Mask &seen) {
    const Mask outer = grown(mask, far), inner = grown(mask, near);
    Values ring, all;
    for (std::size_t i = 0; i < grey.values.size(); ++i) {
        if (seen.values[i] == 0) continue;
        all.push_back(grey.values[i]);
        if (outer.values[i] > inner.values[i]) ring.push_back(grey.values[i]);
    }
    return median(ring.empty() ? std::move(all) : std::move(ring));
}

Strengthened strengthened(const Pixels &grey, const Pixels &moved, const Mask &label,
                          double around, double wanted, double visible) {
    Painted painted;
    for (std::size_t i = 0; i < grey.values.size(); ++i) {
        if (label.values[i] == 0) continue;
        painted.before.push_back(grey.values[i]);
        painted.change.push_back(moved.values[i]);
    }
    if (painted.before.empty()) return {};
    double factor = 1;
    if (wanted > 0) {
        const double least = std::min(1.0, visible / std::max(painted.mean(), 1e-6));
        factor = times(painted, around, wanted, least);
    }
    return {static_cast<float>(factor),
            strength(painted.at(static_cast<float>(factor)), around)};
}

}  // namespace defectrt::internal
