// Arrays of pixels inside the library, [height][width][channels].
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace defectrt::internal {

template <class T>
struct Image {
    std::size_t height = 0, width = 0, channels = 1;
    std::vector<T> values;

    Image() = default;
    Image(std::size_t h, std::size_t w, std::size_t c = 1)
        : height(h), width(w), channels(c), values(h * w * c) {}

    T &at(std::size_t y, std::size_t x, std::size_t c = 0) {
        return values[(y * width + x) * channels + c];
    }
    const T &at(std::size_t y, std::size_t x, std::size_t c = 0) const {
        return values[(y * width + x) * channels + c];
    }
};

using Pixels = Image<float>;
/// 1 where a defect may be, or is.
using Mask = Image<std::uint8_t>;

/// A window of an image: grey, grey + alpha, RGB or RGB + alpha, 0 … top (255 or 65535).
struct Bits : Image<std::uint16_t> {
    std::uint16_t top = 255;

    /// Channels without alpha.
    std::size_t colours() const { return channels - (channels == 2 || channels == 4 ? 1 : 0); }
};

}  // namespace defectrt::internal
