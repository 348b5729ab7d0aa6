// How a defect gets the strength that is wanted (runtime/synthesis/strength.py,
// runtime/images/contrast.py).
#pragma once

#include "image.hpp"

namespace defectrt::internal {

/// By how much to multiply a change, and how strong the defect is then.
struct Strengthened {
    float factor = 1;
    double strength = 0;
};

/// Brightness around a defect; where it leaves nothing around it, of all that is seen.
///
/// grey [H,W] in [0,1]; `mask` is where the defect was asked for, `seen` what counts at all.
double brightness_around(const Pixels &grey, const Mask &mask, const Mask &seen);

/// grey, moved [H,W] in [0,1], an image and what is added to it; `label` is where the defect is. As
/// strong as `wanted`, or, if that is 0, as it comes; its mean change in the label stays at least
/// `visible` if it was.
Strengthened strengthened(const Pixels &grey, const Pixels &moved, const Mask &label,
                          double around, double wanted, double visible);

}  // namespace defectrt::internal
