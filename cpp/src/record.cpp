#include "record.hpp"

#include <locale>
#include <sstream>

namespace defectrt::internal {
namespace {

/// The type of a sample with defects of several types (runtime/config/names.py).
constexpr const char *combined = "combined";

/// By their numbers in defectrt.h.
constexpr const char *backgrounds[] = {"noised", "replay", "dual"};

/// A JSON object, member by member.
class Members {
public:
    Members() {
        out_.imbue(std::locale::classic());
        out_.precision(17);
    }

    Members &operator()(const char *name, const std::string &text) {
        std::string quoted;
        for (const char c : text) {
            if (c == '"' || c == '\\') quoted += '\\';
            quoted += c;
        }
        return json(name, '"' + quoted + '"');
    }

    template <class T>
    Members &operator()(const char *name, T number) {
        begin(name);
        out_ << number;
        return *this;
    }

    /// What is JSON already.
    Members &json(const char *name, const std::string &value) {
        begin(name);
        out_ << value;
        return *this;
    }

    std::string end() const { return out_.str() + '}'; }

private:
    void begin(const char *name) {
        out_ << (first_ ? "{" : ", ") << '"' << name << "\": ";
        first_ = false;
    }

    std::ostringstream out_;
    bool first_ = true;
};

template <class List, class Json>
std::string array(const List &list, Json json) {
    std::string out;
    for (const auto &one : list) out += (out.empty() ? "" : ", ") + json(one);
    return '[' + out + ']';
}

std::string tile(const TileFigures &t) {
    Members window, out;
    window("y", t.window.y)("x", t.window.x)("side", t.window.side);
    out.json("window", window.end());
    out("candidate", t.candidate)("score", t.score)("area", t.area);
    if (!t.reason.empty()) out("rejected", t.reason);
    out("visibility", t.visibility)("coverage", t.coverage)("seam", t.seam);
    out("latent_outside_error", t.latent_outside_error)("strength", t.strength);
    return out.end();
}

}  // namespace

std::string record(const Pipeline &pipeline, const Work &work, const Outcome &made) {
    const Manifest &manifest = pipeline.manifest();
    const Settings &settings = pipeline.settings();
    const auto type = [&](const Planned &one) {
        return manifest.prompts[static_cast<std::size_t>(one.prompts.defect)].name;
    };
    const auto mask = [&](const Planned &one) {
        Members out;
        out("defect", type(one));
        if (one.strength > 0) out("strength", one.strength);
        return out.end();
    };
    std::string of_all = type(work.instances.front());
    for (const Planned &one : work.instances) {
        if (type(one) != of_all) of_all = combined;
    }
    const Figures &f = made.figures;
    Members out;
    out.json("masks", array(work.instances, mask));
    out("seed", work.seed)("defect", of_all)("steps", settings.schedule.generation.size());
    out("background", std::string(backgrounds[settings.background]));
    out("blend", std::string(settings.decoded ? "decoded" : "residual"));
    out("engine", manifest.fingerprint);
    out.json("tiles", array(made.tiles, tile));
    out("mask_area", work.mask_area)("refined_area", f.refined_area);
    out("changed_area", f.changed_area)("outside_error", 0);
    out("latent_outside_error", f.latent_outside_error)("visibility", f.visibility);
    out("strength", f.strength)("coverage", f.coverage)("seam", f.seam);
    return out.end();
}

}  // namespace defectrt::internal
