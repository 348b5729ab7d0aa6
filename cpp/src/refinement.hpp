// Mask refinement, Eq. 13: where the defect really is (runtime/synthesis/refinement.py).
#pragma once

#include "image.hpp"

namespace defectrt::internal {

struct Refinement {
    std::int32_t method;
    double threshold, min_change, min_grain, smooth;
    std::int64_t min_area;
};

/// The part of `mask` [H,W] in which more changed than where a good surface is painted anew.
///
/// before, after [H,W,3] in [0,1], the good image and the result, both decoded.
Mask appeared(const Mask &mask, const Pixels &before, const Pixels &after, const Refinement &how);

/// The label: the part of `mask` [H,W] in which the defect appeared, maybe none of it.
///
/// attention [r,r] over the same window; `shown` [H,W] is what `appeared`.
Mask refine(const Mask &mask, const Pixels &attention, const Mask &shown, const Refinement &how);

}  // namespace defectrt::internal
