// How the caller's pixels lie in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "defectrt/defectrt.h"

namespace defectrt::internal {

/// Channels in the order grey or RGB, then alpha, wherever a format has them.
struct Layout {
    Layout(std::int32_t format, std::int32_t depth);

    std::uint16_t load(const unsigned char *pixel, std::size_t channel) const {
        const unsigned char *at = pixel + place[channel] * sample_bytes;
        if (sample_bytes == 1) return *at;
        std::uint16_t value;
        std::memcpy(&value, at, sizeof value);  // rows need not be aligned
        return value;
    }

    void store(unsigned char *pixel, std::size_t channel, std::uint16_t value) const {
        unsigned char *at = pixel + place[channel] * sample_bytes;
        if (sample_bytes == 1) {
            *at = static_cast<unsigned char>(value);
        } else {
            std::memcpy(at, &value, sizeof value);
        }
    }

    std::size_t channels = 0, sample_bytes = 0, pixel_bytes = 0;
    std::uint16_t top = 0;
    std::size_t place[4] = {0, 1, 2, 3};
};

inline const unsigned char *image_row(const defectrt_image &image, std::size_t y) {
    return static_cast<const unsigned char *>(image.data) +
           static_cast<std::ptrdiff_t>(y) * image.stride;
}

inline const std::uint8_t *mask_row(const defectrt_mask &mask, std::int64_t y) {
    return mask.data + static_cast<std::ptrdiff_t>(y) * mask.stride;
}

/// Defects of one image, at most.
constexpr std::size_t max_instances = 1000;

/// What messages call a request's masks: the mask, then instance 1, instance 2, …
std::string mask_name(std::size_t index);

/// Throws an input error unless an image, its masks and, if it has data, its region can be read as
/// they are described.
void check_view(const defectrt_image &image, const std::vector<defectrt_mask> &masks,
                const defectrt_mask &within);

/// Throws an input error unless all masks lie within a region, if it has data.
void check_within(const defectrt_image &image, const std::vector<defectrt_mask> &masks,
                  const defectrt_mask &within);

}  // namespace defectrt::internal
