#include "pixels.hpp"

#include <algorithm>
#include <cmath>

#include "error.hpp"
#include "filters.hpp"
#include "instances.hpp"

namespace defectrt::internal {
namespace {

/// Python's //, towards minus infinity.
std::int64_t half(std::int64_t x) { return x >= 0 ? x / 2 : -((1 - x) / 2); }

std::int64_t corner(std::int64_t low, std::int64_t high, std::int64_t side, std::int64_t size) {
    const std::int64_t room = size - side;
    return room < 0 ? half(room) : std::clamp<std::int64_t>(half(low + high - side), 0, room);
}

}  // namespace

std::size_t Window::mirrored(std::int64_t start, std::int64_t i, std::size_t size) {
    const auto n = static_cast<std::int64_t>(size);
    const std::int64_t at = ((start + i) % (2 * n) + 2 * n) % (2 * n);
    return static_cast<std::size_t>(at < n ? at : 2 * n - 1 - at);
}

std::optional<Box> bounds(const Instance &instance, const Box &box) {
    Box out{box.bottom, box.top, box.right, box.left};
    for (std::int64_t y = box.top; y < box.bottom; ++y) {
        instance.each(y, box.left, box.right, [&](std::int64_t x) {
            out.top = std::min(out.top, y), out.bottom = y + 1;
            out.left = std::min(out.left, x), out.right = std::max(out.right, x + 1);
        });
    }
    if (out.bottom <= out.top) return std::nullopt;
    return out;
}

Window place_window(const defectrt_image &image, const Box &box, std::int64_t side,
                    std::int64_t context) {
    const std::int64_t longer = std::max(box.bottom - box.top, box.right - box.left);
    side = std::max(side, longer + 2 * context);
    return {corner(box.top, box.bottom, side, image.height),
            corner(box.left, box.right, side, image.width), side};
}

Bits crop(const defectrt_image &image, const Window &window) {
    const auto side = static_cast<std::size_t>(window.side);
    const Layout layout(image.format, image.depth);
    Bits out;
    static_cast<Image<std::uint16_t> &>(out) = {side, side, layout.channels};
    out.top = layout.top;
    for (std::size_t y = 0; y < side; ++y) {
        const auto from = Window::mirrored(window.y, static_cast<std::int64_t>(y), image.height);
        for (std::size_t x = 0; x < side; ++x) {
            const auto column =
                Window::mirrored(window.x, static_cast<std::int64_t>(x), image.width);
            const unsigned char *pixel = image_row(image, from) + column * layout.pixel_bytes;
            for (std::size_t c = 0; c < layout.channels; ++c) {
                out.at(y, x, c) = layout.load(pixel, c);
            }
        }
    }
    return out;
}

Mask crop(const defectrt_image &image, const Instance &instance, const Window &window,
          const Box &box) {
    const auto side = static_cast<std::size_t>(window.side);
    Mask out(side, side);
    for (std::size_t y = 0; y < side; ++y) {
        const auto from = static_cast<std::int64_t>(
            Window::mirrored(window.y, static_cast<std::int64_t>(y), image.height));
        if (from < box.top || from >= box.bottom) continue;
        for (std::size_t x = 0; x < side; ++x) {
            const auto i = static_cast<std::int64_t>(
                Window::mirrored(window.x, static_cast<std::int64_t>(x), image.width));
            out.at(y, x) = i >= box.left && i < box.right && instance.at(from, i) ? 1 : 0;
        }
    }
    return out;
}

std::vector<float> to_model(const Bits &image, std::size_t size) {
    Pixels values(image.height, image.width, 3);
    const float middle = static_cast<float>(image.top) / 2;
    const std::size_t colours = image.colours();
    for (std::size_t i = 0; i < image.height * image.width; ++i) {
        for (std::size_t c = 0; c < 3; ++c) {
            const std::uint16_t bits = image.values[i * image.channels + c % colours];
            values.values[i * 3 + c] = static_cast<float>(bits) / middle - 1;
        }
    }
    values = resize(values, size);
    std::vector<float> planes(3 * size * size);
    for (std::size_t i = 0; i < size * size; ++i) {
        for (std::size_t c = 0; c < 3; ++c) planes[c * size * size + i] = values.values[i * 3 + c];
    }
    return planes;
}

Pixels from_model(const float *pixels, std::size_t height, std::size_t width, std::size_t size) {
    Pixels values(height, width, 3);
    for (std::size_t i = 0; i < height * width; ++i) {
        for (std::size_t c = 0; c < 3; ++c) values.values[i * 3 + c] = pixels[c * height * width + i];
    }
    values = resize(values, size);
    for (float &v : values.values) v = v / 2 + 0.5F;
    return values;
}

std::vector<float> reduce_mask(const Mask &mask, std::size_t height, std::size_t width) {
    std::vector<float> out(height * width);
    // where cells are smaller than px, each px is so many
    const std::size_t down = (height + mask.height - 1) / mask.height;
    const std::size_t right = (width + mask.width - 1) / mask.width;
    const std::size_t rows = mask.height * down, columns = mask.width * right;
    for (std::size_t y = 0; y < rows; ++y) {
        for (std::size_t x = 0; x < columns; ++x) {
            if (mask.at(y / down, x / right) == 0) continue;
            out[y * height / rows * width + x * width / columns] = 1;
        }
    }
    return out;
}

Pixels feather(const Mask &mask, double grow, double width) {
    const auto start = static_cast<float>(grow);
    const auto over = static_cast<float>(std::max(width, 1e-6));
    Pixels out = distance_to(mask);
    for (float &v : out.values) {
        const float ramp = std::clamp(1 - (v - start) / over, 0.0F, 1.0F);
        v = ramp * ramp * (3 - 2 * ramp);
    }
    return out;
}

namespace {

// Channels of grey differ by one part in so many of the range at most: what a JPEG leaves.
constexpr int grey_part = 100;

// Whether no channel differs from the first by more, as a monochrome camera's.
bool is_grey(const Bits &source) {
    const std::size_t colours = source.colours();
    const int most = static_cast<int>(source.top) / grey_part;
    for (std::size_t i = 0; i < source.values.size(); i += source.channels)
        for (std::size_t c = 1; c < colours; ++c)
            if (std::abs(int{source.values[i]} - int{source.values[i + c]}) > most) return false;
    return true;
}

}  // namespace

Bits composite(const Bits &source, const Pixels &change, const Pixels &weight) {
    Bits out = source;
    const double top = source.top;
    const std::size_t colours = source.colours();
    const bool grey = is_grey(source);
    for (std::size_t i = 0; i < weight.values.size(); ++i) {
        if (!(weight.values[i] > 0)) continue;
        const float *moved = change.values.data() + i * 3;
        const float mean = (moved[0] + moved[1] + moved[2]) / 3;
        const double scale = top * static_cast<double>(weight.values[i]);
        for (std::size_t c = 0; c < colours; ++c) {
            const float by = grey ? mean : moved[c];
            std::uint16_t &value = out.values[i * source.channels + c];
            const double result = std::nearbyint(value + scale * static_cast<double>(by));
            value = static_cast<std::uint16_t>(std::clamp(result, 0.0, top));
        }
    }
    return out;
}

}  // namespace defectrt::internal
