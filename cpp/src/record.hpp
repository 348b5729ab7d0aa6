// What a sample says of itself, in the form of a line of manifest.jsonl (runtime/synthesis/canvas.py,
// runtime/synthesis/job.py).
#pragma once

#include <string>

#include "pipeline.hpp"

namespace defectrt::internal {

/// One line of JSON, of what the library knows: not the files, nor where the masks are from.
std::string record(const Pipeline &pipeline, const Work &work, const Outcome &made);

}  // namespace defectrt::internal
