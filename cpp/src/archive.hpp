// The archive of a compiled program: a zip of stored members, guilty until proven innocent.
#pragma once

#include <string>
#include <vector>

namespace defectrt::internal {

struct Member {
    std::string name;  ///< without the folder that all are in
    std::string_view bytes;
};

/// The members that are code, as views into `bytes` (runtime/engines/aoti_engine.py, `unpack`).
///
/// Throws an engine error if the archive holds anything that a program does not: a path that
/// leaves it, a compressed or repeated member, a pickle. `path` names it.
std::vector<Member> read_program(std::string_view bytes, const std::string &path);

}  // namespace defectrt::internal
