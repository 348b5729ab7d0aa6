// A spot in the strokes that paint it: each fits the model's window (runtime/synthesis/strokes.py).
#pragma once

#include <vector>

#include "spots.hpp"

namespace defectrt::internal {

/// A square of the picture, and the part of the mask in it that is painted at once.
struct Stroke {
    Window window;
    Mask mask;
};

/// The strokes of a spot, in the order of painting; none if it is empty.
///
/// side is the model's window, context the px wanted around each stroke. What needs a window of
/// more than twice the model's is cut across its longer side, and each part again until it fits.
std::vector<Stroke> cut(const defectrt_picture &picture, const Spot &spot, std::int64_t side,
                        std::int64_t context);

}  // namespace defectrt::internal
