#include "trust.hpp"

#include <algorithm>

#include "error.hpp"
#include "text.hpp"

namespace defectrt::internal {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool is_fingerprint(const std::string &text) {
    const auto hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
    return text.size() == 64 && std::all_of(text.begin(), text.end(), hex);
}

}  // namespace

void require_trust(const std::filesystem::path &directory, const Manifest &manifest,
                   const std::string &trust) {
    bool named = false;
    std::string word;
    for (std::size_t i = 0; i <= trust.size(); ++i) {
        if (i < trust.size() && trust[i] != ',' && !is_space(trust[i])) {
            word += lower(trust[i]);
            continue;
        }
        if (!word.empty() && !is_fingerprint(word)) {
            throw usage_error("trust: " + quote(word) +
                              " is no fingerprint of an engine: 64 hexadecimal digits");
        }
        named = named || (!word.empty() && word == manifest.fingerprint);
        word.clear();
    }
    if (!named) {
        throw engine_error(directory.u8string() + ": an engine of the backend " +
                           manifest.backend +
                           " is machine code, which may do anything that this process may do. If "
                           "you know where it comes from, trust its fingerprint: " +
                           manifest.fingerprint);
    }
}

}  // namespace defectrt::internal
