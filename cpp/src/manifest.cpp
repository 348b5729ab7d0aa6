#include "manifest.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <set>
#include <stdexcept>

#include "digest.hpp"
#include "error.hpp"
#include "json.hpp"
#include "platform.hpp"
#include "text.hpp"

namespace defectrt::internal {
namespace {

namespace fs = std::filesystem;
using json::Array;
using json::Object;
using json::Value;

constexpr const char *manifest_name = "engine.json";
// A manifest is a few kB; a larger one is not read at all.
/// Faults of a manifest, as a message tells them: one table of steps alone can have hundreds.
constexpr std::size_t told = 8;
constexpr std::size_t max_bytes = std::size_t{4} << 20;
// What file managers leave in every folder that somebody looks at.
constexpr const char *litter[] = {".DS_Store", "Thumbs.db", "desktop.ini"};

/// What is invisible, gives a direction or is no character.
constexpr struct {
    char32_t first, last;
} no_names[] = {{0xAD, 0xAD},     {0x200B, 0x200F}, {0x2028, 0x202E},
                {0x2060, 0x206F}, {0xFEFF, 0xFEFF}, {0xFFF0, 0xFFFF}};

/// What a name may begin with.
bool is_first(char32_t c) {
    if (c < 0xA0) {
        return (c >= U'a' && c <= U'z') || (c >= U'A' && c <= U'Z') || (c >= U'0' && c <= U'9') ||
               c == U'_';
    }
    return std::none_of(std::begin(no_names), std::end(no_names),
                        [&](const auto &range) { return c >= range.first && c <= range.last; });
}

/// Names that mean the same on every system: [A-Za-z0-9_][A-Za-z0-9._-]{0,99}.
bool is_file_name(const std::string &name) {
    const auto inside = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '.' || c == '-';
    };
    return !name.empty() && name.size() <= 100 && name[0] != '.' && name[0] != '-' &&
           std::all_of(name.begin(), name.end(), inside) && name != manifest_name;
}

/// [a-z0-9_]{1,40}
bool is_capability(const std::string &text) {
    const auto inside = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
    };
    return !text.empty() && text.size() <= 40 && std::all_of(text.begin(), text.end(), inside);
}

bool is_hash(const std::string &text) {
    const auto hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
    return text.size() == 64 && std::all_of(text.begin(), text.end(), hex);
}

/// Walks the tree and collects faults as "path: what".
class Reader {
public:
    using Members = std::map<std::string, const Value *>;

    Manifest manifest(const Value &root) {
        Manifest out;
        const Members top = members(
            root, "", {"format", "format_version", "backend", "precision", "image", "latent",
                       "attention", "vae", "prompts", "schedule", "provenance", "files"},
            {"target", "magnify"});
        choice(top, "", "format", {"defectrt-engine"});
        version(top);
        out.backend = choice(top, "", "backend", {"onnx", "aoti", "tensorrt", "tensorrt-rtx"});
        out.precision = choice(top, "", "precision", {"float32", "float16", "bfloat16"});
        out.image = shape(top, "image", true);
        out.latent = shape(top, "latent", true);
        out.attention = shape(top, "attention", false);
        vae(top);
        prompts(top, out);
        schedule(top, out);
        provenance(top);
        files(top, out);
        target(top, out);
        magnify(top, out);
        return out;
    }

    std::vector<std::string> faults;

private:
    void fault(const std::string &path, const std::string &what) {
        faults.push_back((path.empty() ? "file" : path) + ": " + what);
    }

    static std::string at(const std::string &path, const std::string &key) {
        return path.empty() ? key : path + "." + key;
    }

    /// The members of an object that has to have exactly these keys, and may have some more.
    Members members(const Value &value, const std::string &path,
                    std::initializer_list<const char *> keys,
                    std::initializer_list<const char *> optional = {}) {
        Members out;
        const Object *object = value.object();
        if (object == nullptr) {
            fault(path, "should be an object");
            return out;
        }
        const std::set<std::string> known(keys.begin(), keys.end());
        for (const auto &[key, inner] : *object) {
            const bool may = std::find(optional.begin(), optional.end(), key) != optional.end();
            if (known.count(key) == 0 && !may) fault(at(path, key), "unknown key");
            out[key] = &inner;
        }
        for (const auto &key : known) {
            if (out.count(key) == 0) fault(at(path, key), "missing");
        }
        return out;
    }

    Members members(const Members &of, const std::string &path, const char *key,
                    std::initializer_list<const char *> keys) {
        const Value *value = find(of, key);
        return value == nullptr ? Members{} : members(*value, at(path, key), keys);
    }

    /// Nothing if the key is missing, which is a fault already.
    static const Value *find(const Members &of, const char *key) {
        const auto found = of.find(key);
        return found == of.end() ? nullptr : found->second;
    }

    const Array *array(const Members &of, const std::string &path, const char *key) {
        const Value *value = find(of, key);
        if (value == nullptr) return nullptr;
        if (value->array() == nullptr) fault(at(path, key), "should be a list");
        return value->array();
    }

    const Object *object(const Members &of, const std::string &path, const char *key) {
        const Value *value = find(of, key);
        if (value == nullptr) return nullptr;
        if (value->object() == nullptr) fault(at(path, key), "should be an object");
        return value->object();
    }

    std::string text(const Members &of, const std::string &path, const char *key) {
        const Value *value = find(of, key);
        if (value == nullptr) return "";
        if (value->text() == nullptr) {
            fault(at(path, key), "should be a text");
            return "";
        }
        return *value->text();
    }

    std::string choice(const Members &of, const std::string &path, const char *key,
                       std::initializer_list<const char *> known) {
        const std::size_t before = faults.size();
        const std::string value = text(of, path, key);
        const bool found = std::find(known.begin(), known.end(), value) != known.end();
        if (find(of, key) != nullptr && faults.size() == before && !found) {
            fault(at(path, key), "should be one of " +
                                     join({known.begin(), known.end()}, ", "));
        }
        return value;
    }

    std::optional<std::int64_t> integer(const Value &value, const std::string &path,
                                        std::int64_t low, std::int64_t high) {
        const json::Number *number = value.number();
        if (number == nullptr || !number->whole) {
            fault(path, "should be an integer");
        } else if (number->integer < low || number->integer > high) {
            fault(path, "should lie from " + std::to_string(low) + " to " + std::to_string(high));
        } else {
            return number->integer;
        }
        return std::nullopt;
    }

    std::int64_t integer(const Members &of, const std::string &path, const char *key,
                         std::int64_t low, std::int64_t high) {
        const Value *value = find(of, key);
        return value == nullptr ? 0 : integer(*value, at(path, key), low, high).value_or(0);
    }

    /// A finite number of at most `limit` in size; NaN compares false and so is refused too.
    std::optional<double> real(const Value &value, const std::string &path, double limit) {
        const json::Number *number = value.number();
        if (number == nullptr) {
            fault(path, "should be a number");
        } else if (!(number->value >= -limit && number->value <= limit)) {
            fault(path, "should be a finite number in range");
        } else {
            return number->value;
        }
        return std::nullopt;
    }

    void version(const Members &top) {
        const Value *value = find(top, "format_version");
        if (value == nullptr) return;
        const auto number = integer(*value, "format_version", INT64_MIN, INT64_MAX);
        if (number && *number != format_version) {
            fault("format_version", "version " + std::to_string(*number) +
                                        "; this program reads version " +
                                        std::to_string(format_version));
        }
    }

    Shape shape(const Members &top, const char *key, bool channels) {
        constexpr std::int64_t side = 16384;
        Shape out;
        const Members m = channels ? members(top, "", key, {"channels", "height", "width"})
                                   : members(top, "", key, {"height", "width"});
        if (channels) out.channels = integer(m, key, "channels", 1, 256);
        out.height = integer(m, key, "height", 1, side);
        out.width = integer(m, key, "width", 1, side);
        return out;
    }

    void vae(const Members &top) {
        const Members m = members(top, "", "vae", {"scaling_factor", "shift_factor"});
        for (const char *key : {"scaling_factor", "shift_factor"}) {
            if (const Value *value = find(m, key)) {
                real(*value, at("vae", key), std::numeric_limits<double>::max());
            }
        }
    }

    void prompts(const Members &top, Manifest &out) {
        const Array *list = array(top, "", "prompts");
        if (list == nullptr) return;
        const std::size_t before = faults.size();
        for (std::size_t i = 0; i < list->size(); ++i) {
            const std::string path = "prompts." + std::to_string(i);
            const Members m = members((*list)[i], path, {"role", "name", "text"});
            Prompt prompt{choice(m, path, "role", {"background", "masked", "defect"}),
                          text(m, path, "name"), text(m, path, "text")};
            if (m.count("name") != 0 && !is_name(prompt.name)) {
                fault(at(path, "name"),
                      "should be 1 to 100 letters, digits, spaces and . _ + -, a letter, a digit "
                      "or _ first");
            }
            if (json::code_points(prompt.text).size() > 1000) {
                fault(at(path, "text"), "longer than 1000 characters");
            }
            out.prompts.push_back(std::move(prompt));
        }
        if (faults.size() == before) roles(out);
    }

    void roles(const Manifest &manifest) {
        std::map<std::string, int> count, names;
        for (const auto &prompt : manifest.prompts) ++count[prompt.role], ++names[prompt.name];
        if (count["background"] != 1 || count["masked"] != 1 || count["defect"] < 1) {
            fault("prompts", "needs one background, one masked and at least one defect prompt");
        } else if (names.size() != manifest.prompts.size()) {
            fault("prompts", "two prompts have the same name");
        }
    }

    void schedule(const Members &top, Manifest &out) {
        const std::size_t before = faults.size();
        const std::string path = "schedule";
        const Members m = members(top, "", "schedule",
                                  {"solver", "convention", "prediction_type",
                                   "train_timesteps", "default_steps", "tables"});
        choice(m, path, "solver", {"ddim", "dpmsolver++"});
        choice(m, path, "convention", {"paper", "diffusers"});
        choice(m, path, "prediction_type", {"epsilon", "v_prediction", "sample"});
        out.train_timesteps = integer(m, path, "train_timesteps", 1, 1'000'000);
        out.default_steps = integer(m, path, "default_steps", INT64_MIN, INT64_MAX);
        const Object *tables = object(m, path, "tables");
        if (tables == nullptr) return;
        if (tables->empty()) fault("schedule.tables", "should have at least 1 item");
        std::vector<std::pair<std::string, Schedule>> read;
        for (const auto &[steps, table] : *tables) {
            read.emplace_back(steps, this->table(table, "schedule.tables." + steps));
        }
        if (faults.size() == before) consistent(read, out);
    }

    Schedule table(const Value &value, const std::string &path) {
        const Members m = members(value, path, {"inversion", "generation"});
        return {rows(m, path, "inversion"), rows(m, path, "generation")};
    }

    std::vector<StepRow> rows(const Members &of, const std::string &path, const char *key) {
        std::vector<StepRow> out;
        const Array *list = array(of, path, key);
        if (list == nullptr) return out;
        if (list->empty() || list->size() > 10'000) {
            fault(at(path, key), "should have 1 to 10000 items");
            return out;
        }
        for (std::size_t i = 0; i < list->size(); ++i) {
            const std::string here = at(at(path, key), std::to_string(i));
            const Array *row = (*list)[i].array();
            if (row == nullptr || row->size() != 5) {
                fault(here, "should be a list of timestep, a, b, c and alpha");
                continue;
            }
            // what float32 cannot hold is damage
            const auto t = integer((*row)[0], here + ".0", 0, 1'000'000);
            const auto a = real((*row)[1], here + ".1", 1e6);
            const auto b = real((*row)[2], here + ".2", 1e6);
            const auto c = real((*row)[3], here + ".3", 1e6);
            const auto alpha = real((*row)[4], here + ".4", 1);
            if (alpha && *alpha <= 0) fault(here + ".4", "should be above 0");
            if (t && a && b && c && alpha) out.push_back({*t, *a, *b, *c, *alpha});
        }
        return out;
    }

    void consistent(const std::vector<std::pair<std::string, Schedule>> &read, Manifest &out) {
        for (const auto &[steps, table] : read) {
            if (steps != std::to_string(table.inversion.size()) ||
                steps != std::to_string(table.generation.size())) {
                return fault("schedule",
                             "table " + steps + " does not hold " + steps + " steps each way");
            }
            const auto earlier = [](const StepRow &x, const StepRow &y) {
                return x.timestep < y.timestep;
            };
            const auto later = [](const StepRow &x, const StepRow &y) {
                return x.timestep > y.timestep;
            };
            for (const auto *way : {&table.inversion, &table.generation}) {
                const auto last = std::max_element(way->begin(), way->end(), earlier);
                if (last->timestep >= out.train_timesteps) {
                    return fault("schedule", "table " + steps +
                                                 " passes the last of the training timesteps");
                }
            }
            if (!std::is_sorted(table.inversion.begin(), table.inversion.end(), earlier)) {
                return fault("schedule", "table " + steps +
                                             ": inversion does not go from clean to noise");
            }
            if (!std::is_sorted(table.generation.begin(), table.generation.end(), later)) {
                return fault("schedule", "table " + steps +
                                             ": generation does not go from noise to clean");
            }
            out.tables.emplace(static_cast<std::int64_t>(table.inversion.size()), table);
        }
        if (out.tables.count(out.default_steps) == 0) {
            fault("schedule", "there is no table for the default of " +
                                  std::to_string(out.default_steps) + " steps");
        }
    }

    void provenance(const Members &top) {
        const std::string path = "provenance";
        const Members m =
            members(top, "", "provenance", {"base_model", "run", "dataset", "tools"});
        text(m, path, "base_model");
        object(m, path, "run");
        if (const Object *tools = object(m, path, "tools")) {
            for (const auto &[name, version] : *tools) {
                if (version.text() == nullptr) fault("provenance.tools." + name, "should be a text");
            }
        }
        const Array *dataset = array(m, path, "dataset");
        for (std::size_t i = 0; dataset != nullptr && i < dataset->size(); ++i) {
            const std::string here = "provenance.dataset." + std::to_string(i);
            const Members entry = members((*dataset)[i], here, {"name", "sha256"});
            text(entry, here, "name");
            hash(entry, here);
        }
    }

    std::string hash(const Members &of, const std::string &path) {
        const std::string value = text(of, path, "sha256");
        if (of.count("sha256") != 0 && !is_hash(value)) {
            fault(at(path, "sha256"), "should be 64 hexadecimal digits in lower case");
        }
        return value;
    }

    void files(const Members &top, Manifest &out) {
        const Object *list = object(top, "", "files");
        if (list == nullptr) return;
        if (list->empty()) fault("files", "should have at least 1 item");
        for (const auto &[name, value] : *list) {
            const std::string path = "files." + name;
            if (!is_file_name(name)) {
                fault("files", quote(name) + " is not the name of a file in the directory");
            }
            const Members m = members(value, path, {"sha256", "size"});
            const std::string sha256 = hash(m, path);
            const auto size = integer(m, path, "size", 0, INT64_MAX);
            out.files.insert_or_assign(name, FileEntry{sha256, static_cast<std::uint64_t>(size)});
        }
    }

    void magnify(const Members &top, Manifest &out) {
        const Value *value = find(top, "magnify");
        if (value == nullptr) return;
        const std::string *word = value->text();
        if (word != nullptr && *word == "fit") {
            out.magnify = 0;
            return;
        }
        const std::size_t before = faults.size();
        const auto times = integer(*value, "magnify", 1, 4).value_or(1);
        if (faults.size() != before) return;
        if (times == 3) {
            fault("magnify", "should be 1, 2, 4 or fit");
        } else if (out.image.height % times != 0 || out.image.height / times < out.latent.height) {
            fault("magnify", std::to_string(times) + " px are more than a cell of the latents");
        } else {
            out.magnify = times;
        }
    }

    void target(const Members &top, Manifest &out) {
        const Value *value = find(top, "target");
        if (value == nullptr || std::holds_alternative<std::nullptr_t>(value->is)) return;
        const std::string path = "target";
        const Members m = members(*value, path, {"device", "capabilities", "rows", "runtime"});
        Target target;
        target.device = choice(m, path, "device", {"cpu", "cuda"});
        const Array *capabilities = array(m, path, "capabilities");
        for (std::size_t i = 0; capabilities != nullptr && i < capabilities->size(); ++i) {
            const std::string *text = (*capabilities)[i].text();
            if (text == nullptr || !is_capability(*text)) {
                fault(path + ".capabilities." + std::to_string(i),
                      "should be 1 to 40 lower-case letters, digits and _");
            } else {
                target.capabilities.push_back(*text);
            }
        }
        const Array *rows = array(m, path, "rows");
        for (std::size_t i = 0; rows != nullptr && i < rows->size(); ++i) {
            const std::string here = path + ".rows." + std::to_string(i);
            target.rows.push_back(integer((*rows)[i], here, 1, 4096).value_or(1));
        }
        if (const Object *runtime = object(m, path, "runtime")) {
            for (const auto &[name, version] : *runtime) {
                if (version.text() == nullptr) {
                    fault("target.runtime." + name, "should be a text");
                } else {
                    target.runtime.insert_or_assign(name, *version.text());
                }
            }
        }
        out.target = std::move(target);
    }
};

std::string reason() { return std::strerror(errno); }

bool is_link(const fs::path &path) {
    std::error_code ignored;
    return fs::is_symlink(fs::symlink_status(path, ignored));
}

bool is_regular(const fs::path &path) {
    std::error_code ignored;
    return fs::is_regular_file(fs::symlink_status(path, ignored));
}

std::string read(const fs::path &directory) {
    const fs::path path = directory / manifest_name;
    std::error_code ignored;
    if (!fs::is_directory(directory, ignored)) {
        throw engine_error(directory.u8string() + ": no such engine directory");
    }
    // a link or a device may never end
    if (is_link(path) || (fs::exists(path, ignored) && !is_regular(path))) {
        throw engine_error(path.u8string() + ": not a regular file");
    }
    errno = 0;
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        throw engine_error(directory.u8string() + ": not an engine, " + manifest_name +
                           " cannot be read (" + reason() +
                           "); make one with: defectrt build-engine");
    }
    std::string text(max_bytes + 1, '\0');
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<std::size_t>(file.gcount()));
    if (text.size() > max_bytes) {
        throw engine_error(path.u8string() + ": larger than 4 MiB; not a manifest");
    }
    return text;
}

/// SHA-256 of a file, of which no more than `size` and one byte are read.
std::optional<std::string> hash_file(const fs::path &path, std::uint64_t size) {
    std::ifstream file(path, std::ios::binary);
    if (!file) return std::nullopt;
    Sha256 digest;
    std::vector<char> buffer(std::size_t{1} << 20);
    for (std::uint64_t seen = 0; seen <= size && file;) {
        file.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
        digest.update(buffer.data(), static_cast<std::size_t>(file.gcount()));
        seen += static_cast<std::uint64_t>(file.gcount());
    }
    if (file.bad()) return std::nullopt;
    return digest.hex();
}

/// What is wrong with one file, nothing if it is as the manifest says.
std::string file_fault(const fs::path &directory, const std::string &name,
                       const FileEntry &entry) {
    const fs::path path = directory / name;
    if (is_link(path)) return name + " is a link";
    if (!is_regular(path)) return name + " is missing";
    std::error_code failed;
    const std::uintmax_t size = fs::file_size(path, failed);
    if (!failed && size != entry.size) {
        return name + " has " + std::to_string(size) + " bytes instead of " +
               std::to_string(entry.size);
    }
    errno = 0;
    const auto hash = failed ? std::nullopt : hash_file(path, entry.size);
    if (!hash) return name + " cannot be read (" + reason() + ")";
    return *hash == entry.sha256 ? "" : name + " does not have the hash in the manifest";
}

std::vector<std::string> unlisted(const fs::path &directory, const Manifest &manifest) {
    std::set<std::string> names = platform::names_in(directory);
    names.erase(manifest_name);
    for (const char *name : litter) names.erase(name);
    for (const auto &file : manifest.files) names.erase(file.first);
    return {names.begin(), names.end()};
}

}  // namespace

bool is_name(const std::string &text) {
    const auto points = json::code_points(text);
    const auto allowed = [](char32_t c) {
        return is_first(c) || c == U' ' || c == U'.' || c == U'+' || c == U'-';
    };
    return !points.empty() && points.size() <= 100 && is_first(points[0]) &&
           std::all_of(points.begin(), points.end(), allowed);
}

std::vector<std::string> Manifest::defect_types() const {
    std::vector<std::string> out;
    for (const auto &prompt : prompts) {
        if (prompt.role == "defect") out.push_back(prompt.name);
    }
    return out;
}

Prompts Manifest::prompt_indices(const std::optional<std::string> &defect_type) const {
    const auto names = defect_types();
    const std::string wanted = defect_type ? *defect_type : names.size() == 1 ? names[0] : "";
    Prompts out{-1, -1, -1};
    for (std::size_t i = 0; i < prompts.size(); ++i) {
        const auto index = static_cast<std::int64_t>(i);
        if (prompts[i].role == "background") out.background = index;
        if (prompts[i].role == "masked") out.masked = index;
        if (prompts[i].role == "defect" && prompts[i].name == wanted) out.defect = index;
    }
    if (out.defect < 0) {
        throw usage_error((defect_type ? "no defect is named " + quote(wanted)
                                       : "no defect was named") +
                          "; this engine makes: " + join(names, ", "));
    }
    return out;
}

const Schedule &Manifest::steps(std::int64_t count) const {
    const auto found = tables.find(count == 0 ? default_steps : count);
    if (found != tables.end()) return found->second;
    std::vector<std::string> known;
    for (const auto &table : tables) known.push_back(std::to_string(table.first));
    throw usage_error("this engine has no schedule of " + std::to_string(count) +
                      " steps; it has: " + join(known, ", "));
}

Manifest parse_manifest(const std::string &text, const std::string &path) {
    Reader reader;
    Manifest manifest;
    try {
        const json::Document document = json::parse(text);
        manifest = reader.manifest(document.root);
        Sha256 digest;
        digest.update(text.data(), text.size());
        manifest.fingerprint = digest.hex();
        reader.faults.insert(reader.faults.end(), document.faults.begin(), document.faults.end());
    } catch (const std::invalid_argument &error) {
        reader.faults.emplace_back(error.what());
    }
    if (!reader.faults.empty()) {
        auto &faults = reader.faults;
        const std::size_t all = faults.size();
        if (faults.size() > told) {
            faults.resize(told + 1);
            faults.back() = "and " + std::to_string(all - told) + " more";
        }
        throw engine_error(path + ": not a valid manifest: " + join(faults, "; "));
    }
    return manifest;
}

Manifest read_manifest(const fs::path &directory) {
    return parse_manifest(read(directory), (directory / manifest_name).u8string());
}

Manifest verify(const fs::path &directory) {
    Manifest manifest = read_manifest(directory);
    std::vector<std::string> faults;
    for (const auto &[name, entry] : manifest.files) {
        std::string fault = file_fault(directory, name, entry);
        if (!fault.empty()) faults.push_back(std::move(fault));
    }
    for (const auto &name : unlisted(directory, manifest)) {
        faults.push_back(quote(name) + " is not in the manifest");
    }
    if (!faults.empty()) {
        throw engine_error(directory.u8string() +
                           ": the engine is damaged, copy or build it again: " +
                           join(faults, "; "));
    }
    return manifest;
}

}  // namespace defectrt::internal
