// JSON as strictly as Python's side reads it: UTF-8, nothing after the end, no key twice.
//
// A parser of our own because a manifest needs what libraries hide: whether a number was written
// as an integer, and NaN and Infinity (which Python's readers let through) as faults with a path.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace defectrt::internal::json {

struct Value;
using Array = std::vector<Value>;
using Object = std::vector<std::pair<std::string, Value>>;

/// A number: finite or not; `whole` if it was written as an integer that int64 holds.
struct Number {
    double value;
    std::int64_t integer;
    bool whole;
};

struct Value {
    std::variant<std::nullptr_t, bool, Number, std::string, Array, Object> is;

    const Number *number() const { return std::get_if<Number>(&is); }
    const std::string *text() const { return std::get_if<std::string>(&is); }
    const Array *array() const { return std::get_if<Array>(&is); }
    const Object *object() const { return std::get_if<Object>(&is); }
};

struct Document {
    Value root;
    /// What readers disagree about: keys given twice, numbers that are none.
    std::vector<std::string> faults;
};

/// Parse a whole text. Throws std::invalid_argument saying what is wrong, and where.
Document parse(const std::string &text);

/// Code points of valid UTF-8.
std::vector<char32_t> code_points(const std::string &text);

}  // namespace defectrt::internal::json
