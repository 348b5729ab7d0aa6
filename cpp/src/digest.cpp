#include "digest.hpp"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define DEFECTRT_SHA_NI 1
#endif

namespace defectrt::internal {
namespace {

using State = std::array<std::uint32_t, 8>;

alignas(16) constexpr std::uint32_t sha_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

std::uint32_t rotate(std::uint32_t x, int n) { return x >> n | x << (32 - n); }

void sha_plain(State &state, const unsigned char *data, std::size_t blocks) {
    for (; blocks > 0; --blocks, data += 64) {
        std::uint32_t w[64];
        for (std::size_t i = 0; i < 16; ++i) {
            const unsigned char *p = data + 4 * i;
            w[i] = std::uint32_t{p[0]} << 24 | std::uint32_t{p[1]} << 16 |
                   std::uint32_t{p[2]} << 8 | p[3];
        }
        for (std::size_t i = 16; i < 64; ++i) {
            const std::uint32_t a = w[i - 15], b = w[i - 2];
            w[i] = w[i - 16] + w[i - 7] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) +
                   (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
        }
        auto [a, b, c, d, e, f, g, h] = state;
        for (std::size_t i = 0; i < 64; ++i) {
            const std::uint32_t t1 = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) +
                                     ((e & f) ^ (~e & g)) + sha_k[i] + w[i];
            const std::uint32_t t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) +
                                     ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
        }
        const State add{a, b, c, d, e, f, g, h};
        for (std::size_t i = 0; i < 8; ++i) state[i] += add[i];
    }
}

#ifdef DEFECTRT_SHA_NI
// Six times as fast where the processor knows it: an engine of gigabytes is hashed at every start.
__attribute__((target("sha,sse4.1,ssse3"))) void sha_fast(State &state, const unsigned char *data,
                                                          std::size_t blocks) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    const auto load = [](const void *p) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
    };
    // the instructions want the state as ABEF and CDGH
    __m128i low = _mm_shuffle_epi32(load(state.data()), 0xB1);
    __m128i high = _mm_shuffle_epi32(load(state.data() + 4), 0x1B);
    __m128i abef = _mm_alignr_epi8(low, high, 8), cdgh = _mm_blend_epi16(high, low, 0xF0);
    for (; blocks > 0; --blocks, data += 64) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4];
        for (int i = 0; i < 4; ++i) w[i] = _mm_shuffle_epi8(load(data + 16 * i), swap);
        for (int i = 0; i < 16; ++i) {
            const __m128i now = w[i & 3];
            __m128i wk = _mm_add_epi32(now, load(sha_k + 4 * i));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, wk);
            wk = _mm_shuffle_epi32(wk, 0x0E);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, wk);
            if (i < 12) {
                const __m128i last = w[(i + 3) & 3], before = w[(i + 2) & 3];
                __m128i next = _mm_sha256msg1_epu32(now, w[(i + 1) & 3]);
                next = _mm_add_epi32(next, _mm_alignr_epi8(last, before, 4));
                w[i & 3] = _mm_sha256msg2_epu32(next, last);
            }
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    low = _mm_shuffle_epi32(abef, 0x1B);
    high = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128(reinterpret_cast<__m128i *>(state.data()), _mm_blend_epi16(low, high, 0xF0));
    _mm_storeu_si128(reinterpret_cast<__m128i *>(state.data() + 4),
                     _mm_alignr_epi8(high, low, 8));
}

bool has_sha() {
    unsigned a = 7, b = 0, c = 0, d = 0;
    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return (b >> 29 & 1) != 0 && __builtin_cpu_supports("sse4.1") != 0;
}
#endif

void sha_blocks(State &state, const unsigned char *data, std::size_t blocks) {
#ifdef DEFECTRT_SHA_NI
    static const bool fast = has_sha();
    if (fast) return sha_fast(state, data, blocks);
#endif
    sha_plain(state, data, blocks);
}

}  // namespace

void Sha256::update(const void *data, std::size_t size) {
    auto p = static_cast<const unsigned char *>(data);
    total_ += size;
    if (filled_ > 0) {
        const std::size_t n = std::min(size, 64 - filled_);
        std::memcpy(block_.data() + filled_, p, n);
        filled_ += n, p += n, size -= n;
        if (filled_ < 64) return;
        sha_blocks(state_, block_.data(), 1);
        filled_ = 0;
    }
    sha_blocks(state_, p, size / 64);
    p += size / 64 * 64;
    filled_ = size % 64;
    if (filled_ > 0) std::memcpy(block_.data(), p, filled_);
}

Sha256::Bytes Sha256::bytes() {
    const std::uint64_t bits = total_ * 8;
    const std::size_t zeros = (filled_ < 56 ? 56 : 120) - filled_;
    unsigned char tail[128] = {0x80};
    for (std::size_t i = 0; i < 8; ++i) {
        tail[zeros + i] = static_cast<unsigned char>(bits >> (56 - 8 * i));
    }
    update(tail, zeros + 8);
    Bytes out;
    for (std::size_t i = 0; i < out.size(); ++i) {
        out[i] = static_cast<unsigned char>(state_[i / 4] >> (24 - 8 * (i % 4)));
    }
    return out;
}

std::string Sha256::hex() {
    static const char digits[] = "0123456789abcdef";
    std::string out;
    for (const unsigned char byte : bytes()) out += {digits[byte >> 4], digits[byte & 15]};
    return out;
}

}  // namespace defectrt::internal
