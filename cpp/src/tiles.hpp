// An instance in the tiles that paint it: each fits the model's window
// (runtime/synthesis/tiles.py).
#pragma once

#include <vector>

#include "instances.hpp"

namespace defectrt::internal {

/// A square of the image, and the part of the mask in it that is painted at once.
struct Tile {
    Window window;
    Mask mask;
};

/// The tiles of an instance, in the order of painting; none if it is empty.
///
/// side is the model's window, context the px wanted around each tile. What needs a window of
/// more than `scale` times the model's is cut across its longer side, and each part again until
/// it fits.
std::vector<Tile> cut(const defectrt_image &image, const Instance &instance, std::int64_t side,
                      std::int64_t context, std::int64_t scale);

}  // namespace defectrt::internal
