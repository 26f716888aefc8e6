// The loop that is measured.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "backend.h"

namespace pocketship {

inline constexpr std::int64_t kMaxSamples = 10'000'000;

// When warm-up and steady iterations end. Times are nanoseconds of CLOCK_MONOTONIC.
struct Limits {
  std::int64_t warmup_iterations = 10;
  std::int64_t warmup_ns = 0;
  std::int64_t iterations = 50;
  std::int64_t min_ns = 0;
  std::int64_t max_ns = 150'000'000'000;
};

struct Timings {
  std::int64_t first_ns = 0;
  std::vector<std::int64_t> warmup_ns;
  std::vector<std::int64_t> steady_ns;
  // Which limit ended the steady iterations: "iterations", "min_seconds" (that one was met last),
  // "max_seconds" or "max_samples".
  std::string stopped_by;
};

// Runs one inference by itself, calls `after_first` (which keeps its outputs), then warm-up
// iterations until both warm-up limits are met, then steady iterations until `iterations` and
// `min_ns` are both met or `max_ns` is over; at least one steady iteration. `max_ns` also ends the
// warm-up. Throws Failure(kInference).
Timings measure(Backend& backend, const Limits& limits, const std::function<void()>& after_first,
                const std::string& model);

}  // namespace pocketship
