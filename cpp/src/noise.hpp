// Counter-based noise, Philox4x32-10 and Box-Muller: the numbers of runtime/diffusion/noise.py.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace defectrt::internal {

/// Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key);

/// `size` standard normal numbers, a function of (seed, item, sample) alone; up to 2^34.
void normal(std::uint64_t seed, std::uint64_t item, std::uint32_t sample, float *out,
            std::size_t size);

/// A sample's own seed, of 53 bits: of the job's seed, the image's name and its number alone.
std::uint64_t sample_seed(std::uint64_t seed, const char *name, std::uint32_t sample);

}  // namespace defectrt::internal
