// The runner's command line, and what it prints of words that come from files and runtimes.
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "failure.h"
#include "json.h"
#include "options.h"
#include "text.h"

using namespace pocketship;

namespace {

void require(bool good) {
  if (!good) {
    abort();
  }
}

// `text` is well-formed UTF-8, told by the standard's own table of lead and trail bytes.
bool well_formed(const std::string& text) {
  const auto at = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  for (std::size_t i = 0; i < text.size();) {
    const unsigned lead = at(i);
    unsigned low = 0x80;
    unsigned high = 0xBF;
    std::size_t trail = 0;
    if (lead < 0x80) {
      ++i;
      continue;
    }
    if (lead >= 0xC2 && lead <= 0xDF) {
      trail = 1;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
      trail = 2;
      low = lead == 0xE0 ? 0xA0 : low;
      high = lead == 0xED ? 0x9F : high;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
      trail = 3;
      low = lead == 0xF0 ? 0x90 : low;
      high = lead == 0xF4 ? 0x8F : high;
    } else {
      return false;
    }
    for (std::size_t k = 1; k <= trail; ++k) {
      if (at(i + k) < low || at(i + k) > high) {
        return false;
      }
      low = 0x80;
      high = 0xBF;
    }
    i += trail + 1;
  }
  return true;
}

void check_text(const std::string& text) {
  const std::string clean = valid_utf8(text);
  require(well_formed(clean));
  require(!well_formed(text) || clean == text);
  const std::string line = one_line(text, 40);
  require(line.size() <= 40 && well_formed(line));
  for (const char c : line) {
    require(static_cast<unsigned char>(c) >= 0x20 && c != 0x7F);
  }
  const std::string json = quoted(text);
  require(json.size() >= 2 && json.front() == '"' && json.back() == '"' && well_formed(json));
  for (std::size_t i = 1; i + 1 < json.size(); ++i) {
    require(static_cast<unsigned char>(json[i]) >= 0x20 && json[i] != '"');
    if (json[i] == '\\') {
      ++i;
      require(i + 1 < json.size());
    }
  }
}

void check_options(const std::string& text) {
  std::vector<std::string> words = {"bench_runner"};
  for (std::size_t start = 0; start <= text.size();) {
    const std::size_t end = std::min(text.find('\n', start), text.size());
    words.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  std::vector<const char*> argv;
  for (const std::string& word : words) {
    argv.push_back(word.c_str());
  }
  try {
    const Options options = parse_options(static_cast<int>(argv.size()), argv.data());
    require(options.threads >= 1);
    require(options.limits.min_ns >= 0 && options.limits.max_ns >= 0);
    require(options.limits.iterations >= 0 && options.limits.warmup_iterations >= 0);
  } catch (const Failure& failure) {
    require(failure.code() == kUsage);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  if (size == 0) {
    return 0;
  }
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) {
    check_text(text);
  } else {
    check_options(text);
  }
  return 0;
}
