// The errors inside the library; the boundary (c_api.cpp) turns them into a status and a text.
#pragma once

#include <stdexcept>
#include <string>

#include "defectrt/defectrt.h"

namespace defectrt::internal {

class Error : public std::runtime_error {
public:
    Error(defectrt_status status, const std::string &text)
        : std::runtime_error(text), status_(status) {}
    defectrt_status status() const noexcept { return status_; }

private:
    defectrt_status status_;
};

inline Error usage_error(const std::string &text) { return {DEFECTRT_USAGE, text}; }
inline Error input_error(const std::string &text) { return {DEFECTRT_INPUT, text}; }
inline Error engine_error(const std::string &text) { return {DEFECTRT_ENGINE, text}; }

}  // namespace defectrt::internal
