// What the standard library does not have. No other file knows an operating system.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

namespace defectrt::internal::platform {

/// A number of this process that no fork of it has; 0 where there are no forks.
long process_id() noexcept;

/// Cores that this process may run on.
int allowed_cores();

/// A variable of the environment; "" if it is not set.
std::string variable(const char *name);

/// Set a variable of the environment, unless it is set.
void set_default(const char *name, const char *value);

/// Names of everything in a directory. Throws an engine error.
std::set<std::string> names_in(const std::filesystem::path &directory);

/// The names that a shared library `name` has here, the one of major version 1 first.
std::vector<std::string> library_names(const std::string &name);

/// Load a shared library for good, by its file or by a name that the system looks for; nullptr if
/// it cannot be, and then `why`.
void *load(const std::filesystem::path &library, std::string &why);

/// A function of a library that was loaded; nullptr if there is none.
void *function(void *library, const char *name);

/// The file of the library or program that an address lies in; empty if it cannot be told.
std::filesystem::path file_of(const void *address);

}  // namespace defectrt::internal::platform
