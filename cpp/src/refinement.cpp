#include "refinement.hpp"

#include <algorithm>

#include "defectrt/defectrt.h"
#include "filters.hpp"

namespace defectrt::internal {
namespace {

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

/// Where the difference, a little smoothed against grain, is at least `min_change`.
void keep_changed(Mask &refined, const Pixels &change, double min_change, double smooth) {
    const Pixels smoothed = smooth > 0 ? blur(change, smooth) : change;
    const auto least = static_cast<float>(min_change);
    for (std::size_t i = 0; i < refined.values.size(); ++i) {
        if (!(smoothed.values[i] >= least)) refined.values[i] = 0;
    }
}

}  // namespace

Mask refine(const Mask &mask, const Pixels &attention, const Pixels &change,
            const Refinement &how) {
    if (how.method == DEFECTRT_REFINE_NONE) return mask;
    Mask refined = mask;
    if (how.method != DEFECTRT_REFINE_CHANGE) {
        keep_attended(refined, mask, attention, how.threshold);
    }
    if (how.method != DEFECTRT_REFINE_ATTENTION) {
        keep_changed(refined, change, how.min_change, how.smooth);
    }
    return without_specks(refined, how.min_area);
}

}  // namespace defectrt::internal
