#include "refinement.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "defectrt/defectrt.h"
#include "filters.hpp"

namespace defectrt::internal {
namespace {

// Standard deviation in px of the blur that leaves a surface's light and tone, without its grain.
constexpr double even = 8.0;
// Share of normal values that lie within one standard deviation.
constexpr double one_sigma = 0.6827;

/// The attention map, resized, at least `threshold` of its maximum in the mask.
void keep_attended(Mask &refined, const Mask &mask, const Pixels &attention, double threshold) {
    const Pixels map = resize_linear(attention, mask.height, mask.width);
    float top = 0;
    for (std::size_t i = 0; i < mask.values.size(); ++i) {
        if (mask.values[i] != 0) top = std::max(top, map.values[i]);
    }
    const float least = static_cast<float>(threshold) * top;
    for (std::size_t i = 0; i < mask.values.size(); ++i) {
        if (!(top > 0 && map.values[i] >= least)) refined.values[i] = 0;
    }
}

Pixels smoothed(const Pixels &in, double sigma) { return sigma > 0 ? blur(in, sigma) : in; }

/// What two thirds of the px stay below, without what varies slowly, in the channel with the most.
double grain(const Pixels &image, double smooth) {
    const Pixels fine = smoothed(image, smooth), slow = blur(image, even);
    const std::size_t count = image.height * image.width;
    const auto place = static_cast<std::size_t>(one_sigma * static_cast<double>(count));
    std::vector<float> amounts(count);
    float most = 0;
    for (std::size_t c = 0; c < image.channels; ++c) {
        for (std::size_t i = 0; i < count; ++i) {
            const std::size_t at = i * image.channels + c;
            amounts[i] = std::abs(fine.values[at] - slow.values[at]);
        }
        const auto there = amounts.begin() + static_cast<std::ptrdiff_t>(place);
        std::nth_element(amounts.begin(), there, amounts.end());
        most = std::max(most, *there);
    }
    return static_cast<double>(most);
}

/// What changed, where the mask is.
Pixels change_in(const Mask &mask, const Pixels &before, const Pixels &after) {
    Pixels out(after.height, after.width, after.channels);
    for (std::size_t i = 0; i < out.values.size(); ++i) {
        if (mask.values[i / out.channels] != 0) out.values[i] = after.values[i] - before.values[i];
    }
    return out;
}

Pixels as_pixels(const Mask &mask) {
    Pixels out(mask.height, mask.width);
    std::transform(mask.values.begin(), mask.values.end(), out.values.begin(),
                   [](std::uint8_t m) { return m != 0 ? 1.0F : 0.0F; });
    return out;
}

}  // namespace

Mask appeared(const Mask &mask, const Pixels &before, const Pixels &after, const Refinement &how) {
    const auto least =
        static_cast<float>(how.min_change + how.min_grain * grain(before, how.smooth));
    const Pixels share = smoothed(as_pixels(mask), how.smooth);
    const Pixels change = smoothed(change_in(mask, before, after), how.smooth);
    Mask out = mask;
    for (std::size_t i = 0; i < out.values.size(); ++i) {
        const float *c = change.values.data() + i * change.channels;
        const float most = std::max({std::abs(c[0]), std::abs(c[1]), std::abs(c[2])});
        if (!(most >= least * std::max(share.values[i], 1e-6F))) out.values[i] = 0;
    }
    return without_specks(out, how.min_area);
}

Mask refine(const Mask &mask, const Pixels &attention, const Mask &shown, const Refinement &how) {
    if (how.method == DEFECTRT_REFINE_NONE) return mask;
    if (how.method == DEFECTRT_REFINE_CHANGE) return shown;
    Mask refined = mask;
    keep_attended(refined, mask, attention, how.threshold);
    if (how.method == DEFECTRT_REFINE_BOTH) {
        for (std::size_t i = 0; i < refined.values.size(); ++i) refined.values[i] &= shown.values[i];
    }
    return without_specks(refined, how.min_area);
}

}  // namespace defectrt::internal
