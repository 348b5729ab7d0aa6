// The window the model sees, and the composite onto the original (runtime/images).
#pragma once

#include <cstdint>
#include <optional>

#include "defectrt/defectrt.h"
#include "image.hpp"

namespace defectrt::internal {

/// A square of the image that the model sees; beyond the border, pixels are mirrored.
struct Window {
    std::int64_t y = 0, x = 0, side = 0;

    /// The pixel of an image of `size` that position `i` from `start` shows.
    static std::size_t mirrored(std::int64_t start, std::int64_t i, std::size_t size);
};

/// Rows top … bottom-1 and columns left … right-1 of an image.
struct Box {
    std::int64_t top, bottom, left, right;
};

class Instance;

/// The smallest box around what is set within a box, nothing if nothing is.
std::optional<Box> bounds(const Instance &instance, const Box &box);

/// The window for a box: the model's own size at the image's resolution if it fits.
///
/// `side` is the model's window and `context` the pixels wanted around the box; a larger box
/// gets a larger window, which is then scaled.
Window place_window(const defectrt_image &image, const Box &box, std::int64_t side,
                    std::int64_t context);

/// The window's pixels, colours in the order RGB.
Bits crop(const defectrt_image &image, const Window &window);
/// The window's part of an instance, of which only what lies in the box counts.
Mask crop(const defectrt_image &image, const Instance &instance, const Window &window,
          const Box &box);

/// [S,S,C] -> [3][size][size] in [-1,1]; alpha is left out.
std::vector<float> to_model(const Bits &image, std::size_t size);

/// [3][h][w] in about [-1,1] -> [size,size,3], 0 black and 1 white.
Pixels from_model(const float *pixels, std::size_t height, std::size_t width, std::size_t size);

/// [S,S] -> [height,width]: a cell is set if any pixel in it is.
std::vector<float> reduce_mask(const Mask &mask, std::size_t height, std::size_t width);

/// 1 up to `grow` px from the mask, then falling; exactly 0 from `grow + width` px on.
Pixels feather(const Mask &mask, double grow, double width);

/// source + weight · change at the source's bit depth; where the weight is 0, its very bits.
Bits composite(const Bits &source, const Pixels &change, const Pixels &weight);

}  // namespace defectrt::internal
