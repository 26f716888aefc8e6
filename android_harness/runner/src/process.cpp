#include "process.h"

#include <sched.h>
#include <time.h>

#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>

namespace pocketship {

std::string program_folder() {
  std::ifstream maps("/proc/self/maps");
  const auto here = reinterpret_cast<std::uintptr_t>(&program_folder);
  std::string line;
  while (std::getline(maps, line)) {
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
    if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR, &begin, &end) != 2) {
      continue;
    }
    const std::size_t path = line.find('/');
    if (here >= begin && here < end && path != std::string::npos) {
      return line.substr(path, line.rfind('/') - path);
    }
  }
  return ".";
}

std::optional<std::int64_t> status_kib(const char* key) {
  std::ifstream status("/proc/self/status");
  std::string line;
  const std::string prefix = std::string(key) + ":";
  while (std::getline(status, line)) {
    if (line.compare(0, prefix.size(), prefix) == 0) {
      std::istringstream value(line.substr(prefix.size()));
      std::int64_t kib = 0;
      std::string unit;
      if (value >> kib >> unit && unit == "kB") {
        return kib;
      }
    }
  }
  return std::nullopt;
}

bool apply_cpu_mask(const std::string& mask) {
  cpu_set_t wanted;
  CPU_ZERO(&wanted);
  int bit = 0;
  for (auto digit = mask.rbegin(); digit != mask.rend(); ++digit, bit += 4) {
    const int value = *digit <= '9' ? *digit - '0' : (*digit | 0x20) - 'a' + 10;
    for (int i = 0; i < 4; ++i) {
      if ((value >> i & 1) != 0 && bit + i < CPU_SETSIZE) {
        CPU_SET(bit + i, &wanted);
      }
    }
  }
  if (sched_setaffinity(0, sizeof(wanted), &wanted) != 0) {
    return false;
  }
  // The kernel leaves out CPUs that are not there without an error.
  cpu_set_t got;
  CPU_ZERO(&got);
  return sched_getaffinity(0, sizeof(got), &got) == 0 && CPU_EQUAL(&got, &wanted);
}

const char* architecture() {
#if defined(__aarch64__)
  return "aarch64";
#elif defined(__x86_64__)
  return "x86_64";
#else
#error "bench_runner is built for 64-bit ARM and x86 only"
#endif
}

std::int64_t monotonic_ns() {
  struct timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

}  // namespace pocketship
