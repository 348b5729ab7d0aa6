// The manifest of an engine directory: guilty until proven innocent (runtime/engines/manifest.py).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace defectrt::internal {

constexpr int format_version = 1;

/// Channels and size of what a graph takes or gives.
struct Shape {
    std::int64_t channels = 1, height = 0, width = 0;
};

struct Prompt {
    std::string role, name, text;
};

/// One step: ε is evaluated at `timestep`, then z' = a z + b ε + c z_0, as the step before foresaw it.
struct StepRow {
    std::int64_t timestep;
    double a, b, c;
    double alpha;  ///< the level that z has before the step
};

/// All steps of a job: inversion from clean to noise, generation from noise to clean.
struct Schedule {
    std::vector<StepRow> inversion, generation;
};

/// Indices of C_def, C_bg and C_m.
struct Prompts {
    std::int64_t defect, background, masked;
};

struct FileEntry {
    std::string sha256;
    std::uint64_t size;
};

/// What compiled graphs were compiled for; ONNX graphs run anywhere and have none.
struct Target {
    std::string device;                      ///< cpu or cuda
    std::vector<std::string> capabilities;   ///< of a processor, all needed; of a card, one is
    std::vector<std::int64_t> rows;          ///< batch sizes that they are for; or any
    std::map<std::string, std::string> runtime;  ///< versions of the packages that run them
};

struct Manifest {
    /// SHA-256 of the engine.json; it lists the hash of every file, so it stands for the engine.
    std::string fingerprint;
    std::string backend, precision;
    Shape image, latent, attention;
    std::vector<Prompt> prompts;
    std::int64_t train_timesteps = 0, default_steps = 0;
    std::map<std::int64_t, Schedule> tables;
    std::map<std::string, FileEntry> files;
    std::optional<Target> target;
    /// Px of the model's window to one px of the image; 0: its window shows the whole image.
    std::int64_t magnify = 1;

    bool sees_whole() const { return magnify == 0; }
    /// Side of the square that the model sees at once of an image, px of the image.
    std::int64_t window(std::int64_t height, std::int64_t width) const {
        return sees_whole() ? std::max(height, width) : image.height / magnify;
    }
    /// Names of the types of defect the engine can make.
    std::vector<std::string> defect_types() const;
    /// Prompts for one type of defect; it may be left out if there is only one. Throws a usage
    /// error.
    Prompts prompt_indices(const std::optional<std::string> &defect_type) const;
    /// The schedule of `count` steps, or of the default if it is 0. Throws a usage error.
    const Schedule &steps(std::int64_t count) const;
};

/// Whether a text, valid UTF-8, can be the name of a prompt (is_name in the Python file).
///
/// 1 to 100 characters: ASCII letters, digits, _, and from the second one on space . + -; beyond
/// ASCII any from U+00A0 on but U+00AD, U+200B-200F, U+2028-202E, U+2060-206F, U+FEFF and
/// U+FFF0-FFFF.
bool is_name(const std::string &text);

/// Check the text of an engine.json. Throws an engine error with what is wrong in it; `path` names it.
Manifest parse_manifest(const std::string &text, const std::string &path);

/// Read and check engine.json alone.
Manifest read_manifest(const std::filesystem::path &directory);

/// Check the manifest and the size and hash of every file; opens nothing else.
///
/// A file that the manifest does not list is a fault too, since a graph could read it.
Manifest verify(const std::filesystem::path &directory);

}  // namespace defectrt::internal
