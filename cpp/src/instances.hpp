// A mask in the instances that are painted as a defect each (runtime/masks/pieces.py).
#pragma once

#include <memory>
#include <vector>

#include "pixels.hpp"
#include "view.hpp"

namespace defectrt::internal {

/// Cells of `gap` px, and the number of the piece that each belongs to.
struct Cells {
    std::int64_t gap, columns;
    std::vector<std::int32_t> piece;
};

/// A mask, or one of its pieces. Somebody else holds the mask's memory.
class Instance {
public:
    Instance(const defectrt_image &image, const defectrt_mask &mask)
        : box{0, image.height, 0, image.width}, mask_(mask) {}
    Instance(const defectrt_mask &mask, const Box &within, std::shared_ptr<const Cells> cells,
             std::int32_t piece)
        : box(within), mask_(mask), cells_(std::move(cells)), piece_(piece) {}

    /// Calls `f(x)` for what is set in a row, from column `left` to before `right`.
    template <class F>
    void each(std::int64_t y, std::int64_t left, std::int64_t right, F f) const {
        const std::uint8_t *row = mask_row(mask_, y);
        for (std::int64_t x = left; x < right; ++x) {
            if (row[x] != 0 && owns(y, x)) f(x);
        }
    }

    bool at(std::int64_t y, std::int64_t x) const {
        return mask_row(mask_, y)[x] != 0 && owns(y, x);
    }

    /// Where it lies; there may be less of it.
    Box box;

private:
    bool owns(std::int64_t y, std::int64_t x) const {
        if (cells_ == nullptr) return true;
        const std::int64_t cell = y / cells_->gap * cells_->columns + x / cells_->gap;
        return cells_->piece[static_cast<std::size_t>(cell)] == piece_;
    }

    defectrt_mask mask_;
    std::shared_ptr<const Cells> cells_;
    std::int32_t piece_ = 0;
};

/// The parts of a mask that lie far apart, from the top left on; none if it is empty.
///
/// Two pieces are at least `gap` px apart in a row or a column; what is closer stays together, and
/// so may what is up to twice as far. Throws an input error for more than `most`.
std::vector<Instance> pieces(const defectrt_image &image, const defectrt_mask &mask,
                             std::int64_t gap, std::size_t most);

}  // namespace defectrt::internal
