#include "noise.hpp"

#include <cmath>
#include <cstring>

#include "digest.hpp"

namespace defectrt::internal {
namespace {

std::uint32_t low(std::uint64_t x) { return static_cast<std::uint32_t>(x); }
std::uint32_t high(std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); }

/// The first eight bytes of the name's SHA-256, the lowest first.
std::uint64_t item_id(const char *name) {
    Sha256 digest;
    digest.update(name, std::strlen(name));
    const Sha256::Bytes bytes = digest.bytes();
    std::uint64_t id = 0;
    for (std::size_t i = 0; i < 8; ++i) id |= std::uint64_t{bytes[i]} << (8 * i);
    return id;
}

}  // namespace

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> c,
                                        std::array<std::uint32_t, 2> key) {
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t p = std::uint64_t{0xD2511F53} * c[0];
        const std::uint64_t q = std::uint64_t{0xCD9E8D57} * c[2];
        c = {high(q) ^ c[1] ^ key[0], low(q), high(p) ^ c[3] ^ key[1], low(p)};
        key[0] += 0x9E3779B9;
        key[1] += 0xBB67AE85;
    }
    return c;
}

void normal(std::uint64_t seed, std::uint64_t item, std::uint32_t sample, float *out,
            std::size_t size) {
    constexpr double two_pi = 2 * 3.14159265358979323846;
    for (std::size_t block = 0; block * 4 < size; ++block) {
        const auto x = philox4x32({low(block), sample, low(item), high(item)},
                                  {low(seed), high(seed)});
        for (std::size_t j = 0; j < 4 && block * 4 + j < size; ++j) {
            const double u = (x[j & 2] + 0.5) / 4294967296.0;
            const double angle = two_pi * ((x[j | 1] + 0.5) / 4294967296.0);
            const double turn = (j & 1) == 0 ? std::cos(angle) : std::sin(angle);
            out[block * 4 + j] = static_cast<float>(std::sqrt(-2 * std::log(u)) * turn);
        }
    }
}

std::uint64_t sample_seed(std::uint64_t seed, const char *name, std::uint32_t sample) {
    const std::uint64_t item = item_id(name);
    const auto words = philox4x32({0xFFFFFFFF, sample, low(item), high(item)},
                                  {low(seed), high(seed)});
    return (words[0] | std::uint64_t{words[1]} << 32) & ((std::uint64_t{1} << 53) - 1);
}

}  // namespace defectrt::internal
