#include "view.hpp"

#include <cstdlib>

#include "error.hpp"
#include "text.hpp"

namespace defectrt::internal {
namespace {

// Larger images are refused, as in Python.
constexpr std::uint64_t max_pixels = 100'000'000;

bool known(std::int32_t format) { return format >= DEFECTRT_GREY && format <= DEFECTRT_BGRA; }

std::uint64_t magnitude(std::ptrdiff_t stride) {
    return stride < 0 ? ~static_cast<std::uint64_t>(stride) + 1 : static_cast<std::uint64_t>(stride);
}

}  // namespace

Layout::Layout(std::int32_t format, std::int32_t depth) {
    static constexpr std::size_t count[] = {1, 2, 3, 4, 3, 4};
    channels = known(format) ? count[format] : 0;
    sample_bytes = depth == 16 ? 2 : 1;
    pixel_bytes = channels * sample_bytes;
    top = depth == 16 ? 65535 : 255;
    if (format == DEFECTRT_BGR || format == DEFECTRT_BGRA) place[0] = 2, place[2] = 0;
}

std::string mask_name(std::size_t index) {
    return index == 0 ? "the mask" : "instance " + std::to_string(index);
}

void check_view(const defectrt_image &image, const std::vector<defectrt_mask> &masks,
                const defectrt_mask &within) {
    std::vector<std::string> faults;
    if (!known(image.format)) faults.emplace_back("the image's format is unknown");
    if (image.depth != 8 && image.depth != 16) {
        faults.emplace_back("the image has " + std::to_string(image.depth) +
                            " bits a channel; 8 or 16");
    }
    if (image.data == nullptr) faults.emplace_back("the image has no data");
    const std::uint64_t pixels = std::uint64_t{image.height} * image.width;
    if (pixels == 0) faults.emplace_back("the image is empty");
    if (pixels > max_pixels) faults.emplace_back("the image has more than 100 megapixels");
    const Layout layout(image.format, image.depth);
    if (magnitude(image.stride) < std::uint64_t{image.width} * layout.pixel_bytes) {
        faults.emplace_back("the image's stride is shorter than a row");
    }
    for (std::size_t i = 0; i < masks.size(); ++i) {
        if (masks[i].data == nullptr) faults.push_back(mask_name(i) + " has no data");
        if (magnitude(masks[i].stride) < image.width) {
            faults.push_back(mask_name(i) + "'s stride is shorter than a row");
        }
    }
    if (within.data != nullptr && magnitude(within.stride) < image.width) {
        faults.emplace_back("the region's stride is shorter than a row");
    }
    if (!faults.empty()) throw input_error(join(faults, "; "));
}

void check_within(const defectrt_image &image, const std::vector<defectrt_mask> &masks,
                  const defectrt_mask &within) {
    if (within.data == nullptr) return;
    std::uint64_t outside = 0;
    for (const defectrt_mask &mask : masks) {
        for (std::int64_t y = 0; y < std::int64_t{image.height}; ++y) {
            const std::uint8_t *row = mask_row(mask, y), *legal = mask_row(within, y);
            for (std::size_t x = 0; x < image.width; ++x) outside += row[x] != 0 && legal[x] == 0;
        }
    }
    if (outside > 0) {
        throw input_error(std::to_string(outside) + " px of the mask lie where no defect may be");
    }
}

}  // namespace defectrt::internal
