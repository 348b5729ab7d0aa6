// The five operations that the Python runtime takes from OpenCV, to within float32 rounding.
#pragma once

#include "image.hpp"

namespace defectrt::internal {

/// OpenCV's INTER_AREA where the image gets smaller, INTER_CUBIC (A = -3/4) where it grows.
Pixels resize(const Pixels &in, std::size_t size);

/// OpenCV's INTER_LINEAR, pixel centres at half, borders repeated.
Pixels resize_linear(const Pixels &in, std::size_t height, std::size_t width);

/// Gaussian blur with OpenCV's kernel size for float32 and its border, …cb|abc….
Pixels blur(const Pixels &in, double sigma);

/// Exact Euclidean distance of every pixel to the nearest of the mask, which is not empty.
Pixels distance_to(const Mask &mask);

/// The mask without its 8-connected components of fewer than `min_area` pixels.
Mask without_specks(const Mask &mask, std::int64_t min_area);

}  // namespace defectrt::internal
