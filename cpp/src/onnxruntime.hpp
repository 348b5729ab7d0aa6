// The ONNX Runtime that the user ships or names: looked for when the first engine is opened, never
// linked, so that any version from the promised one on will do.
#pragma once

#include <onnxruntime_c_api.h>

#include <string>

namespace defectrt::internal {

struct OnnxRuntime {
    const OrtApi &api;
    std::string version, file;
};

/// Load ONNX Runtime, which stays loaded, and keeps no events.
///
/// `named` is a file, UTF-8. Where it is empty, in this order: the file in DEFECTRT_ONNXRUNTIME,
/// the one beside this library (or the program that it is part of), the one that the system finds.
/// Throws an engine error if there is none, or one that is too old.
OnnxRuntime load_onnxruntime(const std::string &named);

}  // namespace defectrt::internal
