// The archive of a compiled program: a zip of stored members, guilty until proven innocent.
#pragma once

#include <string>
#include <string_view>

namespace defectrt::internal {

/// See that `bytes` are a program (runtime/engines/aoti_engine.py, `checked_copy`).
///
/// Throws an engine error if the archive holds anything that a program does not: a path that
/// leaves it, a compressed or repeated member, a pickle. `path` names it.
void check_program(std::string_view bytes, const std::string &path);

}  // namespace defectrt::internal
