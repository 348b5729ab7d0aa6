#include "platform.hpp"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

#include "error.hpp"

#ifdef _WIN32
#ifndef NOMINMAX
#define NOMINMAX
#endif
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <dirent.h>
#include <dlfcn.h>
#include <unistd.h>
#endif
#ifdef __linux__
#include <link.h>
#include <sched.h>
#endif

namespace defectrt::internal::platform {

int allowed_cores() {
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    return static_cast<int>(std::thread::hardware_concurrency());
}

std::string variable(const char *name) {
    const char *value = std::getenv(name);
    return value == nullptr ? "" : value;
}

#ifdef _WIN32

long process_id() noexcept { return 0; }

void set_default(const char *name, const char *value) {
    if (std::getenv(name) == nullptr) _putenv_s(name, value);
}

std::set<std::string> names_in(const std::filesystem::path &directory) {
    std::set<std::string> names;
    std::error_code failed;
    for (auto it = std::filesystem::directory_iterator(directory, failed);
         !failed && it != std::filesystem::directory_iterator(); it.increment(failed)) {
        names.insert(it->path().filename().u8string());
    }
    if (failed) {
        throw engine_error(directory.u8string() + ": cannot be listed (" + failed.message() + ")");
    }
    return names;
}

std::vector<std::string> library_names(const std::string &name) { return {name + ".dll"}; }

void *load(const std::filesystem::path &library, std::string &why) {
    // what a library needs lies beside it
    const DWORD flags = library.is_absolute() ? LOAD_WITH_ALTERED_SEARCH_PATH : 0;
    HMODULE loaded = LoadLibraryExW(library.c_str(), nullptr, flags);
    if (loaded == nullptr) {
        const auto code = static_cast<int>(GetLastError());
        why = library.u8string() + ": " + std::system_category().message(code);
    }
    return loaded;
}

void *function(void *library, const char *name) {
    return reinterpret_cast<void *>(GetProcAddress(static_cast<HMODULE>(library), name));
}

std::filesystem::path file_of(const void *address) {
    HMODULE module = nullptr;
    const DWORD flags =
        GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
    if (!GetModuleHandleExW(flags, static_cast<LPCWSTR>(address), &module)) return {};
    std::wstring name(32'768, L'\0');
    name.resize(GetModuleFileNameW(module, name.data(), static_cast<DWORD>(name.size())));
    return name;
}

#else

long process_id() noexcept { return getpid(); }

void set_default(const char *name, const char *value) { ::setenv(name, value, 0); }

// libstdc++'s iterator ends the process when memory runs out
std::set<std::string> names_in(const std::filesystem::path &directory) {
    std::set<std::string> names;
    const std::unique_ptr<DIR, int (*)(DIR *)> open(opendir(directory.c_str()), closedir);
    errno = open == nullptr ? errno : 0;
    while (const dirent *entry = open == nullptr ? nullptr : readdir(open.get())) {
        const std::string name = entry->d_name;
        if (name != "." && name != "..") names.insert(name);
        errno = 0;
    }
    if (errno != 0) {
        throw engine_error(directory.u8string() + ": cannot be listed (" + std::strerror(errno) +
                           ")");
    }
    return names;
}

std::vector<std::string> library_names(const std::string &name) {
#ifdef __APPLE__
    return {"lib" + name + ".1.dylib", "lib" + name + ".dylib"};
#else
    return {"lib" + name + ".so.1", "lib" + name + ".so"};
#endif
}

void *load(const std::filesystem::path &library, std::string &why) {
    void *loaded = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (loaded == nullptr) {
        const char *said = dlerror();
        why = said == nullptr ? library.u8string() + ": cannot be loaded" : said;
    }
    return loaded;
}

void *function(void *library, const char *name) { return dlsym(library, name); }

std::filesystem::path file_of(const void *address) {
    Dl_info info;
#ifdef __linux__
    // of the program, dladdr has no more than what it was called by
    void *map = nullptr;
    if (dladdr1(address, &info, &map, RTLD_DL_LINKMAP) == 0) return {};
    if (*static_cast<link_map *>(map)->l_name == '\0') {
        std::error_code unreadable;
        return std::filesystem::read_symlink("/proc/self/exe", unreadable);
    }
#else
    if (dladdr(address, &info) == 0) return {};
#endif
    return info.dli_fname == nullptr ? "" : info.dli_fname;
}

#endif

}  // namespace defectrt::internal::platform
