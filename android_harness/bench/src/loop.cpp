#include "loop.h"

#include <time.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

char* read_aligned(const std::string& path, std::size_t expected_bytes) {
  constexpr std::size_t kAlignment = 64;
  const std::size_t room = (expected_bytes / kAlignment + 2) * kAlignment;
  auto* memory = static_cast<char*>(std::aligned_alloc(kAlignment, room));
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (memory == nullptr || file == nullptr ||
      std::fread(memory, 1, expected_bytes, file) != expected_bytes) {
    give_up("the inputs cannot be read: " + path);
  }
  std::fclose(file);
  return memory;
}

void give_up(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::exit(1);
}

namespace {

std::int64_t now_ns() {
  timespec at = {};
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * std::int64_t{1'000'000'000} + at.tv_nsec;
}

}  // namespace

void run_loop(int warmup, int iterations, const std::function<void()>& around,
              const std::function<bool()>& infer) {
  std::vector<std::int64_t> samples;
  samples.reserve(static_cast<std::size_t>(warmup + iterations));
  for (int i = 0; i < warmup + iterations; ++i) {
    around();
    const std::int64_t begin = now_ns();
    const bool good = infer();
    samples.push_back(now_ns() - begin);
    if (!good) {
      give_up("an inference failed");
    }
  }
  std::printf("[");
  for (int i = warmup; i < warmup + iterations; ++i) {
    std::printf("%s%lld", i == warmup ? "" : ",", static_cast<long long>(samples[i]));
  }
  std::printf("]\n");
}
