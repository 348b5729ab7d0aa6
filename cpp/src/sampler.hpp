// Inversion and generation, Eqs. 8 and 9, as row steps; a background without inversion, Eq. 1
// (runtime/diffusion/sampler.py).
#pragma once

#include <functional>
#include <vector>

#include "engine.hpp"

namespace defectrt::internal {

/// Called after every step; throws to stop.
using Tick = std::function<void()>;

/// What an image brings: prompts, its mask at latent resolution [h,w], and the schedule.
struct Scene {
    const Engine &engine;
    const Schedule &schedule;
    Prompts prompts;
    Floats mask;
};

/// What generation ends with: z*_0 [B,C,h,w] and the mean attention [B,r,r] of the defect rows.
struct Generated {
    Floats latent, attention;
};

/// DDIM inversion of the masked background, Eq. 8: z̃^m_0 … z̃^m_T, each [C,h,w].
std::vector<Floats> invert(const Scene &scene, const Floats &z0, Stop &stop, const Tick &tick);

/// The masked background at every level of noise [B,C,h,w], Eq. 1: z^m_0 … z^m_T, each [B,C,h,w].
std::vector<Floats> noised(const Scene &scene, const Floats &z0, const Floats &noise);

/// Generate defects under the mask of a background, Eq. 9; noise is [B,C,h,w].
///
/// Starts from z*_T = z̃^m_T + m ε. Without `dual`, the background is that of the path, which is one
/// image's, each [C,h,w], or every row's own, each [B,C,h,w].
Generated generate(const Scene &scene, const std::vector<Floats> &path, const Floats &noise,
                   std::size_t batch_size, bool dual, Stop &stop, const Tick &tick);

}  // namespace defectrt::internal
