// The command line.
#pragma once

#include <string>

#include "timing.h"

namespace pocketship {

enum class Action { kMeasure, kDescribe, kVersion, kHelp };

struct Options {
  Action action = Action::kMeasure;
  std::string backend;
  std::string model;
  std::string inputs;
  std::string outputs;
  std::string result;
  std::string profile;   // empty: not asked for
  std::string cpu_mask;  // hexadecimal digits without 0x; empty: not asked for
  int threads = 1;
  int samples = 0;         // inputs in the file, each to be run once; 0: one input that is measured
  int poll_memory_ms = 0;  // 0: not asked for
  Limits limits;
};

// Throws Failure(kUsage) naming the option and what is wrong with it.
Options parse_options(int argc, const char* const* argv);

extern const char* const kUsageText;

}  // namespace pocketship
