// Mask refinement, Eq. 13: where the defect really is (runtime/synthesis/refinement.py).
#pragma once

#include "image.hpp"

namespace defectrt::internal {

struct Refinement {
    std::int32_t method;
    double threshold, min_change, smooth;
    std::int64_t min_area;
};

/// The part of `mask` [H,W] in which the defect appeared, maybe none of it.
///
/// attention [r,r] over the same window; change [H,W] in [0,1], the absolute difference.
Mask refine(const Mask &mask, const Pixels &attention, const Pixels &change,
            const Refinement &how);

}  // namespace defectrt::internal
