#include "tiles.hpp"

#include <algorithm>
#include <optional>

namespace defectrt::internal {
namespace {

std::int64_t longer(const Box &box) {
    return std::max(box.bottom - box.top, box.right - box.left);
}

void split(const Instance &instance, const Box &box, std::int64_t limit,
           std::vector<Box> &boxes) {
    if (longer(box) <= limit) {
        boxes.push_back(box);
        return;
    }
    const std::int64_t height = box.bottom - box.top, width = box.right - box.left;
    const bool rows = height >= width;
    const std::int64_t size = rows ? height : width, count = (size + limit - 1) / limit;
    for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t start = size * i / count, end = size * (i + 1) / count;
        const Box part = rows ? Box{box.top + start, box.top + end, box.left, box.right}
                              : Box{box.top, box.bottom, box.left + start, box.left + end};
        if (const auto inner = bounds(instance, part)) split(instance, *inner, limit, boxes);
    }
}

}  // namespace

std::vector<Tile> cut(const defectrt_image &image, const Instance &instance, std::int64_t side,
                      std::int64_t context, std::int64_t scale) {
    const auto whole = bounds(instance, instance.box);
    if (!whole) return {};
    std::vector<Box> boxes;
    if (longer(*whole) + 2 * context > scale * side) {
        split(instance, *whole, std::max(side - 2 * context, side / 2), boxes);
    } else {
        boxes.push_back(*whole);
    }
    std::vector<Tile> tiles;
    for (const Box &box : boxes) {
        const Window window = place_window(image, box, side, context);
        tiles.push_back({window, crop(image, instance, window, box)});
    }
    return tiles;
}

}  // namespace defectrt::internal
