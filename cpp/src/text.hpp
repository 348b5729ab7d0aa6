// Text for messages.
#pragma once

#include <string>
#include <vector>

namespace defectrt::internal {

/// a, b, c
inline std::string join(const std::vector<std::string> &parts, const char *between) {
    std::string all;
    for (const auto &part : parts) {
        if (!all.empty()) all += between;
        all += part;
    }
    return all;
}

/// 'text', with everything that is not printable ASCII escaped.
inline std::string quote(const std::string &text) {
    static const char digits[] = "0123456789abcdef";
    std::string out = "'";
    for (const char character : text) {
        const auto c = static_cast<unsigned char>(character);
        if (c >= 0x20 && c < 0x7f && c != '\'' && c != '\\') {
            out += character;
        } else {
            out += {'\\', 'x', digits[c >> 4], digits[c & 15]};
        }
    }
    return out + "'";
}

}  // namespace defectrt::internal
