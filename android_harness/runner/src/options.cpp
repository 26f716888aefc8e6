#include "options.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <set>

#include "failure.h"

namespace pocketship {
namespace {

constexpr double kMaxSeconds = 86'400;
constexpr std::size_t kMaxMaskDigits = 256;  // 1024 CPUs, what a cpu_set_t holds
constexpr int kMaxThreads = 256;
constexpr int kMaxInputSamples = 1'000'000;
constexpr int kMaxPollMs = 60'000;

long parse_count(const std::string& flag, const std::string& text, long low, long high) {
  char* end = nullptr;
  const bool digits = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
  const long value = digits && text.size() < 18 ? std::strtol(text.c_str(), &end, 10) : -1;
  if (value < low || value > high) {
    throw Failure(
        kUsage,
        flag + " needs a whole number from " + std::to_string(low) + " to " + std::to_string(high),
        "'" + text + "'");
  }
  return value;
}

std::int64_t parse_seconds(const std::string& flag, const std::string& text) {
  char* end = nullptr;
  const bool plain = !text.empty() && text.find_first_not_of("0123456789.") == std::string::npos;
  const double value = plain ? std::strtod(text.c_str(), &end) : -1;
  if (!plain || *end != '\0' || !std::isfinite(value) || value > kMaxSeconds) {
    throw Failure(kUsage, flag + " needs seconds from 0 to 86400", "'" + text + "'");
  }
  return static_cast<std::int64_t>(value * 1e9);
}

std::string parse_mask(const std::string& flag, const std::string& given) {
  std::string text = given;
  if (text.compare(0, 2, "0x") == 0 || text.compare(0, 2, "0X") == 0) {
    text.erase(0, 2);
  }
  const bool hex = text.find_first_not_of("0123456789abcdefABCDEF") == std::string::npos;
  const bool any = text.find_first_not_of('0') != std::string::npos;
  if (!hex || !any || text.size() > kMaxMaskDigits) {
    throw Failure(kUsage, flag + " needs a hexadecimal mask with at least one CPU",
                  "'" + given + "'");
  }
  text.erase(0, text.find_first_not_of('0'));
  for (char& c : text) {
    c = static_cast<char>(c >= 'A' && c <= 'F' ? c | 0x20 : c);
  }
  return text;
}

void require(const std::string& value, const char* flag) {
  if (value.empty()) {
    throw Failure(kUsage, "a required option is missing", flag);
  }
}

}  // namespace

const char* const kUsageText =
    "usage: bench_runner --backend executorch|onnxruntime --model FILE --inputs FILE\n"
    "         --outputs FILE --result FILE [--warmup-iterations N=10] [--warmup-seconds S=0]\n"
    "         [--iterations N=50] [--min-seconds S=0] [--max-seconds S=150] [--threads N=1]\n"
    "         [--cpu-mask HEX] [--poll-memory-ms N] [--profile FILE | --samples N]\n"
    "       bench_runner --describe --backend B --model FILE\n"
    "       bench_runner --version | --help\n"
    "exit codes: 0 done, 2 usage, 3 model, 4 inputs, 5 runtime library, 6 inference, 7 output\n";

Options parse_options(int argc, const char* const* argv) {
  Options options;
  std::set<std::string> seen;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (!seen.insert(flag).second) {
      throw Failure(kUsage, "an option is given twice", flag);
    }
    if (flag == "--version" || flag == "--help" || flag == "--describe") {
      options.action = flag == "--version" ? Action::kVersion
                       : flag == "--help"  ? Action::kHelp
                                           : Action::kDescribe;
      continue;
    }
    static const std::set<std::string> with_value = {
        "--backend",  "--model",       "--inputs",        "--outputs",
        "--result",   "--iterations",  "--min-seconds",   "--warmup-iterations",
        "--cpu-mask", "--max-seconds", "--threads",       "--warmup-seconds",
        "--profile",  "--samples",     "--poll-memory-ms"};
    if (with_value.count(flag) == 0) {
      throw Failure(kUsage, "unknown option, see --help", flag);
    }
    if (++i == argc || *argv[i] == '\0') {
      throw Failure(kUsage, "an option needs a value", flag);
    }
    const std::string value = argv[i];
    if (flag == "--backend") {
      options.backend = value;
    } else if (flag == "--model") {
      options.model = value;
    } else if (flag == "--inputs") {
      options.inputs = value;
    } else if (flag == "--outputs") {
      options.outputs = value;
    } else if (flag == "--result") {
      options.result = value;
    } else if (flag == "--profile") {
      options.profile = value;
    } else if (flag == "--samples") {
      options.samples = static_cast<int>(parse_count(flag, value, 1, kMaxInputSamples));
    } else if (flag == "--poll-memory-ms") {
      options.poll_memory_ms = static_cast<int>(parse_count(flag, value, 1, kMaxPollMs));
    } else if (flag == "--cpu-mask") {
      options.cpu_mask = parse_mask(flag, value);
    } else if (flag == "--threads") {
      options.threads = static_cast<int>(parse_count(flag, value, 1, kMaxThreads));
    } else if (flag == "--iterations") {
      options.limits.iterations = parse_count(flag, value, 0, kMaxSamples);
    } else if (flag == "--warmup-iterations") {
      options.limits.warmup_iterations = parse_count(flag, value, 0, kMaxSamples);
    } else if (flag == "--warmup-seconds") {
      options.limits.warmup_ns = parse_seconds(flag, value);
    } else if (flag == "--min-seconds") {
      options.limits.min_ns = parse_seconds(flag, value);
    } else {
      options.limits.max_ns = parse_seconds(flag, value);
    }
  }
  if (options.action == Action::kVersion || options.action == Action::kHelp) {
    return options;
  }
  require(options.backend, "--backend");
  if (options.backend != "executorch" && options.backend != "onnxruntime") {
    throw Failure(kUsage, "--backend is executorch or onnxruntime", "'" + options.backend + "'");
  }
  require(options.model, "--model");
  if (options.action == Action::kMeasure) {
    require(options.inputs, "--inputs");
    require(options.outputs, "--outputs");
    require(options.result, "--result");
    if (options.samples > 0 && !options.profile.empty()) {
      throw Failure(kUsage, "--samples and --profile exclude each other", options.profile);
    }
  }
  return options;
}

}  // namespace pocketship
