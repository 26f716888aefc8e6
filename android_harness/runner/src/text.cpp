#include "text.h"

namespace pocketship {
namespace {

// Length of the well-formed UTF-8 sequence at `at`; 0: there is none (Unicode 15, table 3-7).
std::size_t utf8_length(const std::string& text, std::size_t at) {
  const auto byte = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const unsigned first = byte(at);
  const unsigned second = byte(at + 1);
  if (first < 0x80) {
    return 1;
  }
  std::size_t length = 0;
  unsigned low = 0x80;
  unsigned high = 0xbf;
  if (first >= 0xc2 && first <= 0xdf) {
    length = 2;
  } else if (first >= 0xe0 && first <= 0xef) {
    length = 3;
    low = first == 0xe0 ? 0xa0 : low;
    high = first == 0xed ? 0x9f : high;
  } else if (first >= 0xf0 && first <= 0xf4) {
    length = 4;
    low = first == 0xf0 ? 0x90 : low;
    high = first == 0xf4 ? 0x8f : high;
  }
  if (length == 0 || second < low || second > high) {
    return 0;
  }
  for (std::size_t i = 2; i < length; ++i) {
    if (byte(at + i) < 0x80 || byte(at + i) > 0xbf) {
      return 0;
    }
  }
  return length;
}

}  // namespace

std::string valid_utf8(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8_length(text, i);
    if (length == 0) {
      out += "\xef\xbf\xbd";
    } else {
      out.append(text, i, length);
    }
    i += length == 0 ? 1 : length;
  }
  return out;
}

std::string one_line(const std::string& text, std::size_t max_bytes) {
  std::string out = valid_utf8(text);
  for (char& c : out) {
    const auto code = static_cast<unsigned char>(c);
    c = code < 0x20 || code == 0x7f ? ' ' : c;
  }
  if (out.size() > max_bytes) {
    // Not in the middle of a character.
    while (max_bytes > 0 && (static_cast<unsigned char>(out[max_bytes]) & 0xc0) == 0x80) {
      --max_bytes;
    }
    out.resize(max_bytes);
  }
  return out;
}

}  // namespace pocketship
