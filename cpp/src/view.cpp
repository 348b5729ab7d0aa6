#include "view.hpp"

#include <cstdlib>

#include "error.hpp"
#include "text.hpp"

namespace defectrt::internal {
namespace {

// Larger pictures are refused, as in Python.
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
    return index == 0 ? "the mask" : "spot " + std::to_string(index);
}

void check_view(const defectrt_picture &picture, const std::vector<defectrt_mask> &masks) {
    std::vector<std::string> faults;
    if (!known(picture.format)) faults.emplace_back("the picture's format is unknown");
    if (picture.depth != 8 && picture.depth != 16) {
        faults.emplace_back("the picture has " + std::to_string(picture.depth) +
                            " bits a channel; 8 or 16");
    }
    if (picture.data == nullptr) faults.emplace_back("the picture has no data");
    const std::uint64_t pixels = std::uint64_t{picture.height} * picture.width;
    if (pixels == 0) faults.emplace_back("the picture is empty");
    if (pixels > max_pixels) faults.emplace_back("the picture has more than 100 megapixels");
    const Layout layout(picture.format, picture.depth);
    if (magnitude(picture.stride) < std::uint64_t{picture.width} * layout.pixel_bytes) {
        faults.emplace_back("the picture's stride is shorter than a row");
    }
    for (std::size_t i = 0; i < masks.size(); ++i) {
        if (masks[i].data == nullptr) faults.push_back(mask_name(i) + " has no data");
        if (magnitude(masks[i].stride) < picture.width) {
            faults.push_back(mask_name(i) + "'s stride is shorter than a row");
        }
    }
    if (!faults.empty()) throw input_error(join(faults, "; "));
}

}  // namespace defectrt::internal
