// Text that comes from files and runtimes and can hold anything.
#pragma once

#include <cstddef>
#include <string>

namespace pocketship {

// `text` with U+FFFD in place of each byte that is not part of well-formed UTF-8.
std::string valid_utf8(const std::string& text);

// One line of well-formed UTF-8 of at most `max_bytes`: control characters become spaces.
std::string one_line(const std::string& text, std::size_t max_bytes);

}  // namespace pocketship
