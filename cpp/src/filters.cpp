#include "filters.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace defectrt::internal {
namespace {

/// One output pixel as a weighted sum of input pixels.
struct Tap {
    std::size_t index;
    float weight;
};
using Taps = std::vector<std::vector<Tap>>;

/// A separable filter: `across` makes every row, `down` every column.
Pixels apply(const Pixels &in, const Taps &down, const Taps &across) {
    Pixels rows(in.height, across.size(), in.channels), out(down.size(), across.size(), in.channels);
    for (std::size_t y = 0; y < in.height; ++y) {
        for (std::size_t x = 0; x < across.size(); ++x) {
            for (const Tap &tap : across[x]) {
                for (std::size_t c = 0; c < in.channels; ++c) {
                    rows.at(y, x, c) += tap.weight * in.at(y, tap.index, c);
                }
            }
        }
    }
    const std::size_t stride = across.size() * in.channels;
    for (std::size_t y = 0; y < down.size(); ++y) {
        float *to = out.values.data() + y * stride;
        for (const Tap &tap : down[y]) {
            const float *from = rows.values.data() + tap.index * stride;
            for (std::size_t i = 0; i < stride; ++i) to[i] += tap.weight * from[i];
        }
    }
    return out;
}

std::size_t clamp_index(std::ptrdiff_t i, std::size_t size) {
    return static_cast<std::size_t>(
        std::clamp<std::ptrdiff_t>(i, 0, static_cast<std::ptrdiff_t>(size) - 1));
}

/// Every output pixel is the mean over the input it covers.
Taps area_taps(std::size_t from, std::size_t to) {
    const double scale = static_cast<double>(from) / static_cast<double>(to);
    Taps taps(to);
    for (std::size_t i = 0; i < to; ++i) {
        const double begin = static_cast<double>(i) * scale;
        const double end = std::min(begin + scale, static_cast<double>(from));
        for (auto j = static_cast<std::size_t>(begin); static_cast<double>(j) < end; ++j) {
            const double share = std::min(end, static_cast<double>(j) + 1) -
                                 std::max(begin, static_cast<double>(j));
            // OpenCV leaves out slivers too
            if (share > 1e-3) taps[i].push_back({j, static_cast<float>(share / (end - begin))});
        }
    }
    return taps;
}

struct Position {
    std::ptrdiff_t index;
    float fraction;
};

/// Where the centre of output pixel `i` lies in the input.
Position position(std::size_t i, std::size_t from, std::size_t to) {
    const double scale = static_cast<double>(from) / static_cast<double>(to);
    const auto at = static_cast<float>((static_cast<double>(i) + 0.5) * scale - 0.5);
    const float floor = std::floor(at);
    return {static_cast<std::ptrdiff_t>(floor), at - floor};
}

Taps cubic_taps(std::size_t from, std::size_t to) {
    constexpr float a = -0.75F;
    Taps taps(to);
    for (std::size_t i = 0; i < to; ++i) {
        const auto [index, x] = position(i, from, to);
        const float y = 1 - x;
        const float w0 = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a;
        const float w1 = ((a + 2) * x - (a + 3)) * x * x + 1;
        const float w2 = ((a + 2) * y - (a + 3)) * y * y + 1;
        const float weights[] = {w0, w1, w2, 1 - w0 - w1 - w2};
        for (std::ptrdiff_t k = 0; k < 4; ++k) {
            taps[i].push_back({clamp_index(index - 1 + k, from), weights[k]});
        }
    }
    return taps;
}

Taps linear_taps(std::size_t from, std::size_t to) {
    Taps taps(to);
    for (std::size_t i = 0; i < to; ++i) {
        const auto [index, x] = position(i, from, to);
        taps[i] = {{clamp_index(index, from), 1 - x}, {clamp_index(index + 1, from), x}};
    }
    return taps;
}

/// …cb|abcd|cb…, as often as it takes.
std::size_t reflect(std::ptrdiff_t i, std::size_t size) {
    if (size == 1) return 0;
    const auto last = static_cast<std::ptrdiff_t>(size) - 1;
    i = std::abs(i) % (2 * last);
    return static_cast<std::size_t>(i <= last ? i : 2 * last - i);
}

Taps blur_taps(std::size_t size, double sigma) {
    const auto width = static_cast<std::ptrdiff_t>(std::lrint(sigma * 8 + 1)) | 1;
    const std::ptrdiff_t half = width / 2;
    std::vector<double> kernel;
    double sum = 0;
    for (std::ptrdiff_t k = -half; k <= half; ++k) {
        const auto x = static_cast<double>(k);
        kernel.push_back(std::exp(-x * x / (2 * sigma * sigma)));
        sum += kernel.back();
    }
    Taps taps(size);
    for (std::size_t i = 0; i < size; ++i) {
        for (std::ptrdiff_t k = -half; k <= half; ++k) {
            taps[i].push_back({reflect(static_cast<std::ptrdiff_t>(i) + k, size),
                               static_cast<float>(kernel[static_cast<std::size_t>(k + half)] / sum)});
        }
    }
    return taps;
}

/// The lower envelope of the parabolas f(i) + (x - i)², in place.
///
/// Felzenszwalb and Huttenlocher, "Distance transforms of sampled functions", 2012.
class Envelope {
public:
    explicit Envelope(std::size_t size) : f_(size), place_(size), start_(size + 1) {}

    void operator()(double *values, std::size_t n, std::size_t stride) {
        constexpr double infinity = std::numeric_limits<double>::infinity();
        for (std::size_t i = 0; i < n; ++i) f_[i] = values[i * stride];
        std::size_t count = 0;
        for (std::size_t i = 0; i < n; ++i) {
            if (f_[i] == infinity) continue;
            double s = -infinity;
            while (count > 0 && (s = crossing(i, place_[count - 1])) <= start_[count - 1]) --count;
            if (count == 0) s = -infinity;
            place_[count] = i;
            start_[count++] = s;
        }
        if (count == 0) return;
        start_[count] = infinity;
        for (std::size_t i = 0, k = 0; i < n; ++i) {
            while (start_[k + 1] < static_cast<double>(i)) ++k;
            const double d = static_cast<double>(i) - static_cast<double>(place_[k]);
            values[i * stride] = d * d + f_[place_[k]];
        }
    }

private:
    double crossing(std::size_t i, std::size_t j) const {
        const auto x = static_cast<double>(i), y = static_cast<double>(j);
        return ((f_[i] + x * x) - (f_[j] + y * y)) / (2 * (x - y));
    }

    std::vector<double> f_;
    std::vector<std::size_t> place_;
    std::vector<double> start_;
};

}  // namespace

Pixels resize(const Pixels &in, std::size_t size) {
    if (in.height == size && in.width == size) return in;
    const auto taps = size < in.height ? area_taps : cubic_taps;
    return apply(in, taps(in.height, size), taps(in.width, size));
}

Pixels resize_linear(const Pixels &in, std::size_t height, std::size_t width) {
    return apply(in, linear_taps(in.height, height), linear_taps(in.width, width));
}

Pixels blur(const Pixels &in, double sigma) {
    return apply(in, blur_taps(in.height, sigma), blur_taps(in.width, sigma));
}

Pixels distance_to(const Mask &mask) {
    std::vector<double> squares(mask.values.size());
    std::transform(mask.values.begin(), mask.values.end(), squares.begin(), [](std::uint8_t m) {
        return m != 0 ? 0 : std::numeric_limits<double>::infinity();
    });
    Envelope envelope(std::max(mask.height, mask.width));
    for (std::size_t x = 0; x < mask.width; ++x) {
        envelope(squares.data() + x, mask.height, mask.width);
    }
    for (std::size_t y = 0; y < mask.height; ++y) {
        envelope(squares.data() + y * mask.width, mask.width, 1);
    }
    Pixels out(mask.height, mask.width);
    std::transform(squares.begin(), squares.end(), out.values.begin(),
                   [](double s) { return static_cast<float>(std::sqrt(s)); });
    return out;
}

Mask without_specks(const Mask &mask, std::int64_t min_area) {
    Mask out = mask;
    std::vector<std::uint8_t> seen(mask.values.size());
    std::vector<std::size_t> component;
    for (std::size_t start = 0; start < mask.values.size(); ++start) {
        if (mask.values[start] == 0 || seen[start] != 0) continue;
        component.assign(1, start);
        seen[start] = 1;
        for (std::size_t next = 0; next < component.size(); ++next) {
            const std::size_t y = component[next] / mask.width, x = component[next] % mask.width;
            const std::size_t top = y > 0 ? y - 1 : 0, left = x > 0 ? x - 1 : 0;
            for (std::size_t v = top; v <= std::min(y + 1, mask.height - 1); ++v) {
                for (std::size_t u = left; u <= std::min(x + 1, mask.width - 1); ++u) {
                    const std::size_t i = v * mask.width + u;
                    if (mask.values[i] == 0 || seen[i] != 0) continue;
                    seen[i] = 1;
                    component.push_back(i);
                }
            }
        }
        if (static_cast<std::int64_t>(component.size()) < min_area) {
            for (const std::size_t i : component) out.values[i] = 0;
        }
    }
    return out;
}

}  // namespace defectrt::internal
