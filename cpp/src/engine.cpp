#include "engine.hpp"

#include "error.hpp"
#include "text.hpp"

namespace defectrt::internal {

std::shared_ptr<const Engine> load_engine(const std::filesystem::path &directory, int threads) {
    Manifest manifest = verify(directory);
    if (manifest.backend != "onnx") {
        throw engine_error(directory.u8string() + ": this build does not run the backend " +
                           quote(manifest.backend));
    }
    return open_onnx(directory, std::move(manifest), threads);
}

}  // namespace defectrt::internal
