// How many CPU cores there are for this process (runtime/cores.py).
#pragma once

#include <string>

namespace defectrt::internal {

/// Those that this process may run on, or fewer where a container has less time than that: the
/// quota of its control groups, rounded up. `groups` and `mount` are where Linux says so.
int cores(const std::string &groups = "/proc/self/cgroup",
          const std::string &mount = "/sys/fs/cgroup");

/// Threads to compute with: `wanted`, 0 for one a core, and never more than there are cores.
int threads_of(int wanted);

}  // namespace defectrt::internal
