#include "sampler.hpp"

namespace defectrt::internal {
namespace {

/// `one`, `times` after each other.
Floats repeat(const Floats &one, std::size_t times) {
    Floats out;
    out.reserve(one.size() * times);
    for (std::size_t i = 0; i < times; ++i) out.insert(out.end(), one.begin(), one.end());
    return out;
}

Floats outside(const Floats &mask) {
    Floats out(mask.size());
    for (std::size_t i = 0; i < mask.size(); ++i) out[i] = 1 - mask[i];
    return out;
}

/// Rows of one image that differ in their latents only.
class Phase {
public:
    Phase(const Scene &scene, std::size_t batch_size, std::int64_t inside, const Floats &region,
          Floats latent)
        : engine_(scene.engine) {
        rows_.anchor.resize(latent.size());
        rows_.latent = std::move(latent);
        rows_.mask = repeat(scene.mask, batch_size);
        rows_.region = repeat(region, batch_size);
        rows_.inside.assign(batch_size, inside);
        rows_.outside.assign(batch_size, scene.prompts.background);
    }

    /// One step; the result is the next one's latent. Returns the attention.
    Floats step(const StepRow &row, Stop &stop) {
        const std::size_t n = rows_.inside.size();
        rows_.timestep.assign(n, row.timestep);
        rows_.a.assign(n, static_cast<float>(row.a));
        rows_.b.assign(n, static_cast<float>(row.b));
        Stepped out = engine_.step(rows_, stop);
        rows_.latent = std::move(out.latent);
        return std::move(out.attention);
    }

    const Floats &latent() const { return rows_.latent; }
    void anchor(Floats anchor) { rows_.anchor = std::move(anchor); }

private:
    const Engine &engine_;
    Rows rows_;
};

}  // namespace

std::vector<Floats> invert(const Scene &scene, const Floats &z0, Stop &stop, const Tick &tick) {
    const Floats region = outside(scene.mask);
    Floats z = z0;
    for (std::size_t i = 0; i < z.size(); ++i) z[i] *= region[i % region.size()];
    std::vector<Floats> path{z};
    Phase phase(scene, 1, scene.prompts.masked, region, std::move(z));
    for (const StepRow &row : scene.schedule.inversion) {
        phase.step(row, stop);
        path.push_back(phase.latent());
        tick();
    }
    return path;
}

Generated generate(const Scene &scene, const std::vector<Floats> &path, const Floats &noise,
                   std::size_t batch_size, bool dual, Stop &stop, const Tick &tick) {
    Floats z = repeat(path.back(), batch_size);
    Phase background(scene, batch_size, scene.prompts.masked, outside(scene.mask), z);
    for (std::size_t i = 0; i < z.size(); ++i) z[i] += scene.mask[i % scene.mask.size()] * noise[i];
    Phase defect(scene, batch_size, scene.prompts.defect, scene.mask, std::move(z));
    Generated out;
    auto stored = path.rbegin() + 1;
    for (const StepRow &row : scene.schedule.generation) {
        if (dual) {
            background.step(row, stop);
            tick();
        }
        defect.anchor(dual ? background.latent() : repeat(*stored, batch_size));
        const Floats seen = defect.step(row, stop);
        out.attention.resize(seen.size());
        for (std::size_t i = 0; i < seen.size(); ++i) out.attention[i] += seen[i];
        tick();
        ++stored;
    }
    for (float &value : out.attention) {
        value /= static_cast<float>(scene.schedule.generation.size());
    }
    out.latent = defect.latent();
    return out;
}

}  // namespace defectrt::internal
