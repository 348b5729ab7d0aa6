#include "instances.hpp"

#include <algorithm>
#include <string>

#include "error.hpp"

namespace defectrt::internal {
namespace {

constexpr std::int32_t empty = -1, unnumbered = -2;

/// Cells that hold anything of a mask, not numbered yet.
Cells cells_of(const defectrt_image &image, const defectrt_mask &mask, std::int64_t gap) {
    const auto count = [&](std::int64_t side) { return (side + gap - 1) / gap; };
    Cells out{gap, count(image.width), {}};
    out.piece.assign(static_cast<std::size_t>(count(image.height) * out.columns), empty);
    const Instance whole(image, mask);
    for (std::int64_t y = 0; y < image.height; ++y) {
        std::int32_t *row = out.piece.data() + y / gap * out.columns;
        whole.each(y, 0, image.width, [&](std::int64_t x) { row[x / gap] = unnumbered; });
    }
    return out;
}

/// Numbers what touches a cell, by a side or a corner; the box around it, in cells.
Box number(Cells &cells, std::size_t start, std::int32_t piece) {
    const auto rows = static_cast<std::int64_t>(cells.piece.size()) / cells.columns;
    const auto begin = static_cast<std::int64_t>(start);
    Box box{begin / cells.columns, 0, cells.columns, 0};
    std::vector<std::int64_t> left{begin};
    cells.piece[start] = piece;
    while (!left.empty()) {
        const std::int64_t y = left.back() / cells.columns, x = left.back() % cells.columns;
        left.pop_back();
        box = {std::min(box.top, y), std::max(box.bottom, y + 1), std::min(box.left, x),
               std::max(box.right, x + 1)};
        for (std::int64_t v = std::max<std::int64_t>(y - 1, 0); v < std::min(y + 2, rows); ++v) {
            for (std::int64_t u = std::max<std::int64_t>(x - 1, 0);
                 u < std::min(x + 2, cells.columns); ++u) {
                std::int32_t &other = cells.piece[static_cast<std::size_t>(v * cells.columns + u)];
                if (other != unnumbered) continue;
                other = piece;
                left.push_back(v * cells.columns + u);
            }
        }
    }
    return box;
}

}  // namespace

std::vector<Instance> pieces(const defectrt_image &image, const defectrt_mask &mask,
                             std::int64_t gap, std::size_t most) {
    auto cells = std::make_shared<Cells>(cells_of(image, mask, gap));
    const auto rows = static_cast<std::int64_t>(cells->piece.size()) / cells->columns;
    std::vector<Instance> out;
    // by squares of 2 x 2 cells, which is the order of OpenCV's labels
    for (std::int64_t square = 0; square < (rows + 1) / 2 * ((cells->columns + 1) / 2); ++square) {
        for (std::int64_t i = 0; i < 4; ++i) {
            const std::int64_t across = (cells->columns + 1) / 2;
            const std::int64_t y = square / across * 2 + i / 2, x = square % across * 2 + i % 2;
            if (y >= rows || x >= cells->columns) continue;
            const auto cell = static_cast<std::size_t>(y * cells->columns + x);
            if (cells->piece[cell] != unnumbered) continue;
            if (out.size() == most) {
                throw input_error("the mask has more than " + std::to_string(most) +
                                  " pieces that lie far apart");
            }
            const auto piece = static_cast<std::int32_t>(out.size());
            const Box box = number(*cells, cell, piece);
            const Box within{box.top * gap, std::min<std::int64_t>(box.bottom * gap, image.height),
                             box.left * gap,
                             std::min<std::int64_t>(box.right * gap, image.width)};
            out.emplace_back(mask, within, cells, piece);
        }
    }
    return out;
}

}  // namespace defectrt::internal
