#include "onnxruntime.hpp"

#include <cstdlib>

#include "error.hpp"
#include "platform.hpp"
#include "text.hpp"

namespace defectrt::internal {
namespace {

namespace fs = std::filesystem;

// The first version that runs opset 23; what is used of it is in all later ones.
constexpr std::uint32_t api_version = 23;
constexpr const char *asked_for = "this library needs 1.23 or a later 1.x";

/// Where it is called by its name.
constexpr const char *variable = "DEFECTRT_ONNXRUNTIME";

void *load(const fs::path &file) {
    std::string why;
    void *library = platform::load(file, why);
    if (library == nullptr) throw engine_error("ONNX Runtime cannot be loaded: " + why);
    return library;
}

/// What nobody named.
void *find() {
    const fs::path beside = platform::file_of(reinterpret_cast<const void *>(&find)).parent_path();
    const auto names = platform::library_names("onnxruntime");
    for (const std::string &name : names) {
        std::error_code unreadable;
        if (!beside.empty() && fs::exists(beside / name, unreadable)) return load(beside / name);
    }
    std::string why;
    for (const std::string &name : names) {
        if (void *library = platform::load(name, why)) return library;
    }
    throw engine_error("there is no ONNX Runtime, neither " + names.front() + " in " +
                       beside.u8string() + " nor where the system looks for libraries; " +
                       asked_for + ": put it there, or name its file in " + variable +
                       " or in defectrt_engine_options.onnxruntime");
}

}  // namespace

OnnxRuntime load_onnxruntime(const std::string &named) {
    // It keeps an identity of the machine and a queue of events in the user's cache, to be sent,
    // unless it is told so before it starts. What the user has set is left alone.
    platform::set_default("ORT_DISABLE_TELEMETRY", "1");
    const std::string chosen = named.empty() ? platform::variable(variable) : named;
    void *library = chosen.empty() ? find() : load(fs::u8path(chosen));
    void *entry = platform::function(library, "OrtGetApiBase");
    const std::string file = platform::file_of(entry).u8string();
    if (entry == nullptr) {
        throw engine_error((chosen.empty() ? "what was found" : chosen) +
                           " is no ONNX Runtime: it has no OrtGetApiBase");
    }
    const OrtApiBase *base = reinterpret_cast<decltype(&OrtGetApiBase)>(entry)();
    const std::string version = base->GetVersionString();
    // asked for an interface that it does not have, it would print
    const std::size_t dot = version.find('.');
    const long minor = dot == std::string::npos ? 0 : std::atol(version.c_str() + dot + 1);
    const OrtApi *api = nullptr;
    if (std::atol(version.c_str()) == 1 && minor >= long{api_version}) {
        api = base->GetApi(api_version);
    }
    if (api == nullptr) {
        throw engine_error("ONNX Runtime " + version + " in " + file + ": " + asked_for);
    }
    return {*api, version, file};
}

}  // namespace defectrt::internal
