// The AOTInductor backend: three compiled programs for libtorch (runtime/engines/aoti_engine.py).
//
// On a CPU only what was tried: on a GPU it has never been run.
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/cpu/Utils.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/cuda.h>
#include <torch/types.h>
#include <torch/version.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <set>

#include <stdlib.h>
#include <sys/utsname.h>

#include "archive.hpp"
#include "cores.hpp"
#include "digest.hpp"
#include "engine.hpp"
#include "error.hpp"
#include "text.hpp"

namespace defectrt::internal {
namespace {

namespace fs = std::filesystem;
using torch::inductor::AOTIModelPackageLoader;

// Rows that a program takes: from 64 on diffusers' upsampling takes another way.
constexpr std::size_t most_rows = 63;
// Runs at once of one program; each has buffers of its own.
constexpr std::size_t most_runs = 16;

/// A folder that only this user can look into, and that goes with its owner.
class PrivateFolder {
public:
    PrivateFolder() {
        std::error_code failed;
        const fs::path parent = fs::temp_directory_path(failed);
        std::string name = (parent / "defectrt-XXXXXX").string();
        if (failed || mkdtemp(name.data()) == nullptr) {
            throw engine_error("no temporary folder can be made in " + parent.string());
        }
        path_ = name;
    }
    ~PrivateFolder() {
        std::error_code ignored;
        fs::remove_all(path_, ignored);
    }
    PrivateFolder(const PrivateFolder &) = delete;
    PrivateFolder &operator=(const PrivateFolder &) = delete;

    const fs::path &path() const { return path_; }

private:
    fs::path path_;
};

/// This thread's calls use so many threads of the CPU.
class Threads {
public:
    explicit Threads(int count) : before_(at::get_num_threads()) {
        if (count != before_) at::set_num_threads(count);
        changed_ = count != before_;
    }
    ~Threads() {
        if (changed_) at::set_num_threads(before_);
    }
    Threads(const Threads &) = delete;
    Threads &operator=(const Threads &) = delete;

private:
    int before_;
    bool changed_ = false;
};

std::string torch_version() {
    return std::to_string(TORCH_VERSION_MAJOR) + "." + std::to_string(TORCH_VERSION_MINOR) + "." +
           std::to_string(TORCH_VERSION_PATCH);
}

/// What this processor offers, in a target's words; those that nobody asks for are not there.
std::set<std::string> capabilities() {
    std::set<std::string> out;
    utsname system{};
    if (uname(&system) == 0) out.insert(system.machine);
    const std::string level = at::get_cpu_capability();
    if (level == "AVX2" || level == "AVX512") out.insert("avx2");
    if (level == "AVX512") out.insert("avx512");
    if (at::cpu::is_avx512_vnni_supported()) out.insert("avx512_vnni");
#if defined(__x86_64__)
    if (__builtin_cpu_supports("amx-tile")) out.insert("amx_tile");
#endif
    return out;
}

/// The target, if this machine is one.
Target fitting(const fs::path &directory, const Manifest &manifest) {
    const std::string name = directory.string();
    if (!manifest.target) {
        throw engine_error(name + ": the manifest does not say what it was compiled for");
    }
    const Target &target = *manifest.target;
    const auto found = target.runtime.find("torch");
    const std::string wanted = found == target.runtime.end() ? "unknown" : found->second;
    if (wanted != torch_version()) {
        throw engine_error(name + ": compiled with PyTorch " + wanted +
                           ", which alone can run it; here is " + torch_version());
    }
    if (target.device == "cuda") {
        if (!torch::cuda::is_available()) {
            throw engine_error(name +
                               ": compiled for an NVIDIA GPU, and libtorch sees none here");
        }
        return target;
    }
    std::vector<std::string> lacking;
    const auto offered = capabilities();
    for (const auto &needed : target.capabilities) {
        if (offered.count(needed) == 0) lacking.push_back(needed);
    }
    if (!lacking.empty()) {
        throw engine_error(name + ": compiled for a processor with " + join(lacking, ", ") +
                           ", which this one does not have");
    }
    return target;
}

std::string read_file(const fs::path &path, const FileEntry &entry) {
    std::ifstream file(path, std::ios::binary);
    std::string bytes(static_cast<std::size_t>(entry.size), '\0');
    file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    Sha256 digest;
    digest.update(bytes.data(), bytes.size());
    if (!file || file.get() != std::ifstream::traits_type::eof() ||
        digest.hex() != entry.sha256) {
        throw engine_error(path.string() + " changed while it was opened");
    }
    return bytes;
}

/// Check a program and copy it; what libtorch unpacks then are the very bytes that were checked.
void copy_checked(const fs::path &path, const FileEntry &entry, const fs::path &copy) {
    const std::string bytes = read_file(path, entry);
    check_program(bytes, path.string());
    std::ofstream file(copy, std::ios::binary);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (!file.flush()) throw engine_error(copy.string() + " cannot be written");
}

/// One input of all rows, and the shape of a row.
struct Input {
    const void *data;
    at::ScalarType type;
    std::vector<std::int64_t> shape;
};

struct Output {
    Floats *into;
    std::vector<std::int64_t> shape;
};

class AotiEngine final : public Engine {
public:
    AotiEngine(const fs::path &directory, Manifest manifest, int threads)
        : manifest_(std::move(manifest)), target_(fitting(directory, manifest_)),
          device_(target_.device == "cuda" ? at::kCUDA : at::kCPU),
          threads_(threads) {
        std::sort(target_.rows.begin(), target_.rows.end());
        require_files(directory, manifest_, ".pt2");
        for (std::size_t i = 0; i < graph_names.size(); ++i) {
            programs_[i] = load(directory, graph_names[i]);
        }
    }

    const Manifest &manifest() const override { return manifest_; }

    Floats encode(const Floats &pixels, std::size_t batch_size, Stop &stop) const override {
        Floats out;
        run(0, {{pixels.data(), at::kFloat, shape(manifest_.image)}},
            {{&out, shape(manifest_.latent)}}, batch_size, stop);
        return out;
    }

    Floats decode(const Floats &latent, std::size_t batch_size, Stop &stop) const override {
        Floats out;
        run(2, {{latent.data(), at::kFloat, shape(manifest_.latent)}},
            {{&out, shape(manifest_.image)}}, batch_size, stop);
        return out;
    }

    Stepped step(const Rows &rows, Stop &stop) const override {
        const auto latent = shape(manifest_.latent);
        const auto plane = shape({1, manifest_.latent.height, manifest_.latent.width});
        Stepped out;
        run(1,
            {{rows.latent.data(), at::kFloat, latent},
             {rows.timestep.data(), at::kLong, {}},
             {rows.mask.data(), at::kFloat, plane},
             {rows.inside.data(), at::kLong, {}},
             {rows.outside.data(), at::kLong, {}},
             {rows.a.data(), at::kFloat, {}},
             {rows.b.data(), at::kFloat, {}},
             {rows.region.data(), at::kFloat, plane},
             {rows.anchor.data(), at::kFloat, latent}},
            {{&out.latent, latent}, {&out.attention, shape(manifest_.attention)}},
            rows.batch_size(), stop);
        return out;
    }

private:
    static std::vector<std::int64_t> shape(const Shape &s) {
        return {s.channels, s.height, s.width};
    }

    std::unique_ptr<AOTIModelPackageLoader> load(const fs::path &directory, const char *name) {
        const fs::path path = directory / (std::string(name) + ".pt2");
        const PrivateFolder folder;
        const fs::path copy = folder.path() / path.filename();
        copy_checked(path, manifest_.files.at(path.filename().string()), copy);
        const bool gpu = device_ == at::kCUDA;
        try {
            return std::make_unique<AOTIModelPackageLoader>(
                copy.string(), "model", gpu,
                gpu ? 1 : std::min(most_runs, static_cast<std::size_t>(cores())));
        } catch (const std::bad_alloc &) {
            throw;
        } catch (const std::exception &error) {
            throw engine_error(path.string() + ": AOTInductor cannot load the program: " +
                               first_line(error.what()));
        }
    }

    static std::string first_line(const std::string &text) {
        return text.substr(0, text.find('\n'));
    }

    /// All rows, in the sizes that were compiled; what is left is padded with its last row.
    void run(std::size_t program, const std::vector<Input> &inputs,
             const std::vector<Output> &outputs, std::size_t batch_size, Stop &stop) const {
        for (const Output &output : outputs) output.into->clear();
        static const std::vector<std::int64_t> pictures{1};
        const auto &sizes = program == 1 ? target_.rows : pictures;
        for (std::size_t start = 0; start < batch_size;) {
            std::size_t count = std::min(batch_size - start, most_rows), size = count;
            if (!sizes.empty()) {
                count = std::min(count, static_cast<std::size_t>(sizes.back()));
                size = static_cast<std::size_t>(
                    *std::lower_bound(sizes.begin(), sizes.end(), std::int64_t(count)));
            }
            stop.check();
            try {
                batch(program, inputs, outputs, start, count, size);
            } catch (const std::bad_alloc &) {
                throw;
            } catch (const std::exception &error) {
                throw engine_error(std::string(graph_names[program]) + ": AOTInductor failed: " +
                                   first_line(error.what()));
            }
            start += count;
        }
        stop.check();
    }

    void batch(std::size_t program, const std::vector<Input> &inputs,
               const std::vector<Output> &outputs, std::size_t start, std::size_t count,
               std::size_t size) const {
        const Threads threads(threads_);
        const c10::InferenceMode inference;
        std::vector<at::Tensor> given;
        given.reserve(inputs.size());
        for (const Input &input : inputs) given.push_back(tensor(input, start, count, size));
        const std::vector<at::Tensor> made = programs_[program]->run(given);
        if (made.size() != outputs.size()) throw std::runtime_error("other outputs than it had");
        for (std::size_t i = 0; i < made.size(); ++i) append(made[i], outputs[i], count, size);
    }

    at::Tensor tensor(const Input &input, std::size_t start, std::size_t count,
                      std::size_t size) const {
        std::vector<std::int64_t> all{static_cast<std::int64_t>(count)};
        all.insert(all.end(), input.shape.begin(), input.shape.end());
        std::size_t bytes = input.type == at::kLong ? sizeof(std::int64_t) : sizeof(float);
        for (const std::int64_t side : input.shape) bytes *= static_cast<std::size_t>(side);
        // the interface has no const, and does not write to inputs
        auto *first = const_cast<char *>(static_cast<const char *>(input.data)) + start * bytes;
        at::Tensor out = torch::from_blob(first, all, input.type);
        if (size > count) {
            const auto last = out.narrow(0, static_cast<std::int64_t>(count) - 1, 1);
            all[0] = static_cast<std::int64_t>(size - count);
            out = at::cat({out, last.expand(all)});
        }
        return out.to(device_);
    }

    static void append(const at::Tensor &made, const Output &output, std::size_t count,
                       std::size_t size) {
        std::vector<std::int64_t> all{static_cast<std::int64_t>(size)};
        all.insert(all.end(), output.shape.begin(), output.shape.end());
        if (made.sizes() != at::IntArrayRef(all) || made.scalar_type() != at::kFloat) {
            throw std::runtime_error("an output of another shape or type than the manifest's");
        }
        const at::Tensor here =
            made.narrow(0, 0, static_cast<std::int64_t>(count)).cpu().contiguous();
        const float *values = here.const_data_ptr<float>();
        output.into->insert(output.into->end(), values, values + here.numel());
    }

    Manifest manifest_;
    Target target_;
    at::Device device_;
    int threads_;
    std::array<std::unique_ptr<AOTIModelPackageLoader>, 3> programs_;
};

}  // namespace

std::unique_ptr<const Engine> open_aoti(const fs::path &directory, Manifest manifest,
                                        int threads) {
    return std::make_unique<AotiEngine>(directory, std::move(manifest), threads);
}

}  // namespace defectrt::internal
