// Engines that are machine code run only if the caller named them (runtime/engines/trust.py).
#pragma once

#include <filesystem>
#include <string>

#include "manifest.hpp"

namespace defectrt::internal {

/// Throws an engine error unless the manifest's fingerprint is among those in `trust`, which are
/// divided by commas or spaces; a usage error if one of them is none.
void require_trust(const std::filesystem::path &directory, const Manifest &manifest,
                   const std::string &trust);

}  // namespace defectrt::internal
