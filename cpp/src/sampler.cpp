#include "sampler.hpp"

#include <cmath>

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

/// Latents of one image on their way, and what their next step needs of the last one.
class Branch {
public:
    Branch(const Scene &scene, std::size_t batch_size, std::int64_t inside, const Floats &region,
           Floats latent)
        : engine_(scene.engine) {
        rows_.anchor.resize(latent.size());
        rows_.latent = std::move(latent);
        rows_.mask = repeat(scene.mask, batch_size);
        rows_.region = repeat(region, batch_size);
        rows_.inside.assign(batch_size, inside);
        rows_.outside.assign(batch_size, scene.prompts.background);
    }

    /// One step where the region is, and `anchor` elsewhere. Returns the attention.
    Floats step(const StepRow &row, Stop &stop, Floats anchor) {
        if (row.c != 0 && last_ != nullptr) remember(row, anchor);
        const std::size_t n = rows_.inside.size();
        rows_.timestep.assign(n, row.timestep);
        rows_.a.assign(n, static_cast<float>(row.a));
        rows_.b.assign(n, static_cast<float>(row.b));
        rows_.anchor = std::move(anchor);
        Stepped out = engine_.step(rows_, stop);
        last_ = &row;
        before_ = std::move(rows_.latent);
        rows_.latent = std::move(out.latent);
        return std::move(out.attention);
    }

    Floats step(const StepRow &row, Stop &stop) {
        return step(row, stop, Floats(rows_.latent.size()));
    }

    const Floats &latent() const { return rows_.latent; }

private:
    /// Adds c z_0, as the last step foresaw it, to the anchor where the region is.
    void remember(const StepRow &row, Floats &anchor) const {
        const auto a = static_cast<float>(last_->a), b = static_cast<float>(last_->b);
        const auto signal = static_cast<float>(std::sqrt(last_->alpha));
        const auto noise = static_cast<float>(std::sqrt(1 - last_->alpha));
        const auto c = static_cast<float>(row.c);
        const std::size_t pixels = rows_.region.size() / rows_.inside.size();
        const std::size_t each = anchor.size() / rows_.inside.size();
        for (std::size_t i = 0; i < anchor.size(); ++i) {
            const float moved = rows_.latent[i] - rows_.anchor[i];
            const float clean = (before_[i] - noise * ((moved - a * before_[i]) / b)) / signal;
            anchor[i] += rows_.region[i / each * pixels + i % pixels] * (c * clean);
        }
    }

    const Engine &engine_;
    Rows rows_;
    const StepRow *last_ = nullptr;
    Floats before_;  ///< the latent that the last step began with
};

}  // namespace

std::vector<Floats> invert(const Scene &scene, const Floats &z0, Stop &stop, const Tick &tick) {
    const Floats region = outside(scene.mask);
    Floats z = z0;
    for (std::size_t i = 0; i < z.size(); ++i) z[i] *= region[i % region.size()];
    std::vector<Floats> path{z};
    Branch background(scene, 1, scene.prompts.masked, region, std::move(z));
    for (const StepRow &row : scene.schedule.inversion) {
        background.step(row, stop);
        path.push_back(background.latent());
        tick();
    }
    return path;
}

std::vector<Floats> noised(const Scene &scene, const Floats &z0, const Floats &noise) {
    const Floats region = outside(scene.mask);
    const auto at = [&](float of_clean, float of_noise) {
        Floats z(noise.size());
        for (std::size_t i = 0; i < z.size(); ++i) {
            z[i] = region[i % region.size()] *
                   (of_clean * z0[i % z0.size()] + of_noise * noise[i]);
        }
        return z;
    };
    std::vector<Floats> path{at(1, 0)};
    const auto &levels = scene.schedule.generation;
    for (auto row = levels.rbegin(); row != levels.rend(); ++row) {
        path.push_back(at(static_cast<float>(std::sqrt(row->alpha)),
                          static_cast<float>(std::sqrt(1 - row->alpha))));
    }
    return path;
}

Generated generate(const Scene &scene, const std::vector<Floats> &path, const Floats &noise,
                   std::size_t batch_size, bool dual, Stop &stop, const Tick &tick) {
    const auto each = [&](const Floats &z) { return repeat(z, noise.size() / z.size()); };
    Floats z = each(path.back());
    Branch background(scene, batch_size, scene.prompts.masked, outside(scene.mask), z);
    for (std::size_t i = 0; i < z.size(); ++i) z[i] += scene.mask[i % scene.mask.size()] * noise[i];
    Branch defect(scene, batch_size, scene.prompts.defect, scene.mask, std::move(z));
    Generated out;
    auto stored = path.rbegin() + 1;
    for (const StepRow &row : scene.schedule.generation) {
        if (dual) {
            background.step(row, stop);
            tick();
        }
        const Floats seen = defect.step(row, stop, dual ? background.latent() : each(*stored));
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
