// Any bytes as the description of an image, its masks and its pixels, in buffers of exactly that
// size.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "defectrt/defectrt.hpp"

namespace {

defectrt_session *session() {
    static const defectrt::Engine engine(DEFECTRT_FUZZ_ENGINE, 1);
    static defectrt::Session made = [] {
        defectrt::Options options;
        options.steps = 2;
        return defectrt::Session(engine, options);
    }();
    return made.get();
}

struct Head {
    std::uint8_t width, height, format, depth, pad, flip, mask, seed;
};

/// Rows of so many bytes, each `pad` bytes longer than needed, the last of them not.
std::vector<std::uint8_t> buffer(std::size_t row, std::size_t height, std::size_t pad) {
    return std::vector<std::uint8_t>(height > 0 ? (row + pad) * (height - 1) + row : 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    Head head;
    if (size < sizeof head) return 0;
    std::memcpy(&head, data, sizeof head);
    data += sizeof head, size -= sizeof head;
    const std::size_t width = head.width % 80, height = head.height % 80, pad = head.pad % 8;
    static const std::size_t channels[] = {1, 2, 3, 4, 3, 4};
    const std::int32_t format = head.format % 7, depth = head.depth % 3 == 0 ? head.depth
                                                         : head.depth % 3 == 1 ? 8
                                                                               : 16;
    const std::size_t row = width * channels[format % 6] * (depth == 16 ? 2 : 1);
    std::vector<std::uint8_t> pixels = buffer(row, height, pad), mask = buffer(width, height, pad);
    std::vector<std::uint8_t> out = buffer(row, height, pad), label = buffer(width, height, pad);
    for (std::size_t i = 0; i < pixels.size() && size > 0; ++i) pixels[i] = data[i % size];
    for (std::size_t i = head.mask; i < mask.size() && size > 0; i += 1 + data[i % size] % 16) {
        mask[i] = 1;
    }
    // how many instances, and how often a mask's bytes are left out of one
    const std::size_t instance_count = head.flip / 2 % 4, every = 2 + head.flip / 8 % 4;
    std::vector<std::vector<std::uint8_t>> instances(instance_count, mask);
    std::vector<defectrt_mask> views;
    for (std::size_t s = 0; s < instance_count; ++s) {
        for (std::size_t i = s; i < mask.size(); i += every) instances[s][i] = 0;
        views.push_back({instances[s].data(), static_cast<std::ptrdiff_t>(width + pad)});
    }
    const auto stride = static_cast<std::ptrdiff_t>(row + pad);
    const bool flip = head.flip % 2 == 1 && height > 0;
    defectrt::Request request;
    request.image = {pixels.data() + (flip ? (height - 1) * (row + pad) : 0),
                     flip ? -stride : stride,
                     static_cast<std::uint32_t>(width),
                     static_cast<std::uint32_t>(height),
                     format,
                     depth};
    request.mask = {mask.data(), static_cast<std::ptrdiff_t>(width + pad)};
    request.instances = views.data();
    request.instance_count = static_cast<std::uint32_t>(instance_count);
    request.split = head.flip / 32 % 3;
    request.seed = head.seed;
    defectrt_result result{};
    result.struct_size = sizeof result;
    result.image = out.data();
    result.image_stride = stride;
    result.mask = label.data();
    result.mask_stride = static_cast<std::ptrdiff_t>(width + pad);
    const defectrt_status status = defectrt_synthesize(session(), &request, &result);
    const bool usage = status == DEFECTRT_USAGE && request.split == 2;
    if (status != DEFECTRT_OK && status != DEFECTRT_INPUT && status != DEFECTRT_NOTHING_DONE &&
        !usage) {
        std::abort();
    }
    return 0;
}
