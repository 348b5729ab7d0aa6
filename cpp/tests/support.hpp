// Shared by the tests: an image with a mask, and the engine in tests/engine.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "defectrt/defectrt.hpp"

/// A grey image of 40 x 50, lighter to the right, and a mask of 8 x 8 in it.
struct Image {
    std::vector<std::uint8_t> pixels, mask;
    defectrt::Request request;

    Image() : pixels(40 * 50), mask(40 * 50) {
        for (std::size_t i = 0; i < pixels.size(); ++i) {
            pixels[i] = static_cast<std::uint8_t>(150 + i % 50);
        }
        for (std::size_t y = 16; y < 24; ++y) std::memset(&mask[y * 50 + 20], 1, 8);
        request.image = {pixels.data(), 50, 50, 40, DEFECTRT_GREY, 8};
        request.mask = {mask.data(), 50};
    }
};
