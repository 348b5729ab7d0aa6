#include "archive.hpp"

#include <algorithm>
#include <cstdint>
#include <set>
#include <vector>

#include "error.hpp"
#include "text.hpp"

namespace defectrt::internal {
namespace {

constexpr std::string_view code_folder = "data/aotinductor/model/";
constexpr std::string_view marks[] = {"archive_format", "archive_version", "byteorder",
                                      ".data/version", ".data/serialization_id"};

/// [A-Za-z0-9_][A-Za-z0-9_.-]*
bool is_plain(std::string_view name) {
    const auto inside = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '.' || c == '-';
    };
    return !name.empty() && name[0] != '.' && name[0] != '-' &&
           std::all_of(name.begin(), name.end(), inside);
}

bool starts_with(std::string_view text, std::string_view start) {
    return text.substr(0, start.size()) == start;
}

/// Numbers of a zip, which are little-endian, with every place checked.
class Bytes {
public:
    explicit Bytes(std::string_view all) : all_(all) {}

    std::uint64_t number(std::uint64_t at, unsigned size) const {
        std::uint64_t out = 0;
        const std::string_view digits = text(at, size);
        for (unsigned i = size; i-- > 0;) out = out << 8 | static_cast<unsigned char>(digits[i]);
        return out;
    }
    std::string_view text(std::uint64_t at, std::uint64_t size) const {
        if (at > all_.size() || size > all_.size() - at) throw engine_error("it is cut short");
        return all_.substr(static_cast<std::size_t>(at), static_cast<std::size_t>(size));
    }

private:
    std::string_view all_;
};

struct Entry {
    std::string_view name;
    bool compressed;
};

/// All members, in the order of the directory at the end, which has to be without a comment.
std::vector<Entry> entries(std::string_view bytes) {
    constexpr std::uint64_t end_size = 22, header_size = 46, local_size = 30;
    const Bytes zip(bytes);
    if (bytes.size() < end_size || !starts_with(bytes.substr(bytes.size() - end_size), "PK\5\6")) {
        throw engine_error("it is no zip");
    }
    const std::uint64_t end = bytes.size() - end_size;
    const std::uint64_t count = zip.number(end + 10, 2);
    std::uint64_t at = zip.number(end + 16, 4);
    std::vector<Entry> out;
    for (std::uint64_t i = 0; i < count; ++i) {
        if (zip.text(at, 4) != "PK\1\2") throw engine_error("its directory is damaged");
        const bool compressed = zip.number(at + 10, 2) != 0;
        const std::uint64_t packed = zip.number(at + 20, 4), size = zip.number(at + 24, 4);
        const std::uint64_t name = zip.number(at + 28, 2), local = zip.number(at + 42, 4);
        if (packed != size && !compressed) throw engine_error("its directory is damaged");
        if (zip.text(local, 4) != "PK\3\4") throw engine_error("its directory is damaged");
        const std::uint64_t start =
            local + local_size + zip.number(local + 26, 2) + zip.number(local + 28, 2);
        zip.text(start, packed);
        out.push_back({zip.text(at + header_size, name), compressed});
        at += header_size + name + zip.number(at + 30, 2) + zip.number(at + 32, 2);
    }
    return out;
}

void check(std::string_view bytes) {
    std::vector<std::string> faults;
    std::set<std::string_view> names, folders;
    std::size_t libraries = 0;
    for (const Entry &entry : entries(bytes)) {
        const std::size_t slash = std::min(entry.name.find('/'), entry.name.size());
        const std::string_view folder = entry.name.substr(0, slash);
        const std::string_view rest = entry.name.substr(std::min(slash + 1, entry.name.size()));
        const bool is_code = is_plain(folder) && starts_with(rest, code_folder) &&
                             is_plain(rest.substr(code_folder.size()));
        const bool is_mark = is_plain(folder) && std::find(std::begin(marks), std::end(marks),
                                                           rest) != std::end(marks);
        const std::string name = quote(std::string(entry.name));
        if (!is_code && !is_mark) faults.push_back(name);
        if (!names.insert(entry.name).second) faults.push_back(name + " twice");
        if (entry.compressed) faults.push_back(name + " compressed");
        folders.insert(folder);
        libraries += is_code && rest.size() > 3 && rest.substr(rest.size() - 3) == ".so";
    }
    if (folders.size() > 1) faults.emplace_back("several folders");
    if (!faults.empty()) throw engine_error("it holds " + join(faults, ", "));
    if (libraries != 1) throw engine_error("it holds no library, or several");
}

}  // namespace

void check_program(std::string_view bytes, const std::string &path) {
    try {
        check(bytes);
    } catch (const Error &error) {
        throw engine_error(path + ": not a program of AOTInductor: " + error.what());
    }
}

}  // namespace defectrt::internal
