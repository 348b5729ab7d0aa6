// Any bytes as an engine.json: read, or refused with an engine error, and nothing else.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "error.hpp"
#include "manifest.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    using namespace defectrt::internal;
    try {
        const Manifest manifest =
            parse_manifest({reinterpret_cast<const char *>(data), size}, "engine.json");
        manifest.prompt_indices(manifest.defect_types().front());
        manifest.steps(0);
    } catch (const Error &error) {
        if (error.status() != DEFECTRT_ENGINE) std::abort();
    }
    return 0;
}
