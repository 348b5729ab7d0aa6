#include "json.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace defectrt::internal::json {
namespace {

// Python's reader stops here too, long before the stack does.
constexpr int max_depth = 200;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Bytes of the UTF-8 sequence at `at`, 0 if it is none; Unicode 15, table 3-7.
std::size_t sequence(const std::string &s, std::size_t at) {
    const auto byte = [&](std::size_t i) {
        return at + i < s.size() ? static_cast<unsigned char>(s[at + i]) : 0U;
    };
    const auto in = [&](std::size_t i, unsigned low, unsigned high) {
        return byte(i) >= low && byte(i) <= high;
    };
    const unsigned first = byte(0);
    if (first < 0x80) return 1;
    if (first >= 0xC2 && first <= 0xDF) return in(1, 0x80, 0xBF) ? 2 : 0;
    if (first >= 0xE0 && first <= 0xEF) {
        const unsigned low = first == 0xE0 ? 0xA0 : 0x80, high = first == 0xED ? 0x9F : 0xBF;
        return in(1, low, high) && in(2, 0x80, 0xBF) ? 3 : 0;
    }
    if (first >= 0xF0 && first <= 0xF4) {
        const unsigned low = first == 0xF0 ? 0x90 : 0x80, high = first == 0xF4 ? 0x8F : 0xBF;
        return in(1, low, high) && in(2, 0x80, 0xBF) && in(3, 0x80, 0xBF) ? 4 : 0;
    }
    return 0;
}

void append(std::string &out, std::uint32_t code) {
    const auto put = [&](std::uint32_t bits) { out += static_cast<char>(bits); };
    if (code < 0x80) {
        put(code);
    } else if (code < 0x800) {
        put(0xC0 | code >> 6);
        put(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        put(0xE0 | code >> 12);
        put(0x80 | (code >> 6 & 0x3F));
        put(0x80 | (code & 0x3F));
    } else {
        put(0xF0 | code >> 18);
        put(0x80 | (code >> 12 & 0x3F));
        put(0x80 | (code >> 6 & 0x3F));
        put(0x80 | (code & 0x3F));
    }
}

class Parser {
public:
    explicit Parser(const std::string &text) : text_(text) {}

    Document document() {
        Document out;
        out.root = value(0);
        skip_space();
        if (at_ != text_.size()) fail("something after the end");
        out.faults = std::move(faults_);
        return out;
    }

private:
    [[noreturn]] void fail(const std::string &what) const {
        const auto upto = text_.begin() + static_cast<std::ptrdiff_t>(std::min(at_, text_.size()));
        throw std::invalid_argument(
            what + " in line " + std::to_string(1 + std::count(text_.begin(), upto, '\n')));
    }

    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

    void skip_space() {
        while (at_ < text_.size() && (peek() == ' ' || peek() == '\t' || peek() == '\n' ||
                                      peek() == '\r')) {
            ++at_;
        }
    }

    bool take(const char *word) {
        const std::string wanted(word);
        if (text_.compare(at_, wanted.size(), wanted) != 0) return false;
        at_ += wanted.size();
        return true;
    }

    Value value(int depth) {
        if (depth > max_depth) fail("nested too deeply");
        skip_space();
        if (peek() == '{') return {object(depth)};
        if (peek() == '[') return {array(depth)};
        if (peek() == '"') return {string()};
        if (take("true")) return {true};
        if (take("false")) return {false};
        if (take("null")) return {nullptr};
        return {number()};
    }

    Object object(int depth) {
        Object out;
        ++at_;
        skip_space();
        if (take("}")) return out;
        do {
            skip_space();
            if (peek() != '"') fail("a key is missing");
            std::string key = string();
            skip_space();
            if (!take(":")) fail("a colon is missing");
            out.emplace_back(std::move(key), value(depth + 1));
            skip_space();
        } while (take(","));
        if (!take("}")) fail("an object does not end");
        note_twice(out);
        return out;
    }

    Array array(int depth) {
        Array out;
        ++at_;
        skip_space();
        if (take("]")) return out;
        do {
            out.push_back(value(depth + 1));
            skip_space();
        } while (take(","));
        if (!take("]")) fail("a list does not end");
        return out;
    }

    void note_twice(const Object &object) {
        std::vector<std::string> keys;
        keys.reserve(object.size());
        for (const auto &member : object) keys.push_back(member.first);
        std::sort(keys.begin(), keys.end());
        for (auto it = keys.begin(); (it = std::adjacent_find(it, keys.end())) != keys.end();) {
            faults_.push_back("given twice: " + *it);
            it = std::upper_bound(it, keys.end(), *it);
        }
    }

    std::string string() {
        std::string out;
        ++at_;
        while (at_ < text_.size()) {
            const char c = text_[at_];
            if (c == '"') {
                ++at_;
                return out;
            }
            if (static_cast<unsigned char>(c) < 0x20) fail("a control character in a text");
            if (c == '\\') {
                escape(out);
            } else {
                const std::size_t bytes = sequence(text_, at_);
                if (bytes == 0) fail("a text that is not UTF-8");
                out.append(text_, at_, bytes);
                at_ += bytes;
            }
        }
        fail("a text does not end");
    }

    void escape(std::string &out) {
        static const std::string names = "\"\\/bfnrt", values = "\"\\/\b\f\n\r\t";
        ++at_;
        const char c = peek();
        ++at_;
        if (c == 'u') return append(out, unicode());
        const std::size_t which = c == '\0' ? std::string::npos : names.find(c);
        if (which == std::string::npos) fail("an unknown escape");
        out += values[which];
    }

    std::uint32_t unicode() {
        const std::uint32_t high = hex4();
        if (high < 0xD800 || high > 0xDFFF) return high;
        if (high > 0xDBFF || !take("\\u")) fail("half a character");
        const std::uint32_t low = hex4();
        if (low < 0xDC00 || low > 0xDFFF) fail("half a character");
        return 0x10000 + ((high - 0xD800) << 10 | (low - 0xDC00));
    }

    std::uint32_t hex4() {
        std::uint32_t code = 0;
        if (text_.size() - std::min(at_, text_.size()) < 4) fail("an escape does not end");
        const char *from = text_.data() + at_;
        if (std::any_of(from, from + 4, [](char c) { return c == '+' || c == '-'; }) ||
            std::from_chars(from, from + 4, code, 16).ptr != from + 4) {
            fail("an escape is not hexadecimal");
        }
        at_ += 4;
        return code;
    }

    Number number() {
        const std::size_t start = at_;
        for (const char *word : {"NaN", "Infinity", "-Infinity"}) {
            if (take(word)) return not_a_number(word);
        }
        if (peek() == '-') ++at_;
        const std::size_t first = at_;
        digits();
        if (text_[first] == '0' && at_ > first + 1) fail("a number begins with 0");
        bool whole = true;
        if (take(".")) {
            whole = false;
            digits();
        }
        if (peek() == 'e' || peek() == 'E') {
            whole = false;
            ++at_;
            if (peek() == '+' || peek() == '-') ++at_;
            digits();
        }
        return convert(text_.substr(start, at_ - start), whole);
    }

    void digits() {
        if (!is_digit(peek())) fail("a value is missing or misspelt");
        while (is_digit(peek())) ++at_;
    }

    Number convert(const std::string &s, bool whole) {
        Number out{0, 0, false};
        const char *end = s.data() + s.size();
        if (whole) out.whole = std::from_chars(s.data(), end, out.integer).ec == std::errc();
        if (std::from_chars(s.data(), end, out.value).ec == std::errc()) return out;
        // too small is 0; too large is no number
        const bool small = s.find("e-") != std::string::npos ||
                           s.find("E-") != std::string::npos || s[s[0] == '-'] == '0';
        if (!small) return not_a_number(s.size() > 40 ? s.substr(0, 40) + "..." : s);
        out.value = 0;
        return out;
    }

    Number not_a_number(const std::string &s) {
        faults_.push_back(s + " is not a number");
        return {std::numeric_limits<double>::quiet_NaN(), 0, false};
    }

    const std::string &text_;
    std::size_t at_ = 0;
    std::vector<std::string> faults_;
};

}  // namespace

Document parse(const std::string &text) { return Parser(text).document(); }

std::vector<char32_t> code_points(const std::string &text) {
    static const unsigned char lead[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    std::vector<char32_t> out;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t bytes = std::max<std::size_t>(sequence(text, at), 1);
        char32_t code = static_cast<unsigned char>(text[at]) & lead[bytes];
        for (std::size_t i = 1; i < bytes; ++i) {
            code = code << 6 | (static_cast<unsigned char>(text[at + i]) & 0x3F);
        }
        out.push_back(code);
        at += bytes;
    }
    return out;
}

}  // namespace defectrt::internal::json
