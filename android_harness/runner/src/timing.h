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
  std::int64_t iterations = 50;  // 0: the first inference alone
  std::int64_t min_ns = 0;
  std::int64_t max_ns = 150'000'000'000;
};

struct Timings {
  std::int64_t first_ns = 0;
  std::vector<std::int64_t> warmup_ns;
  std::vector<std::int64_t> steady_ns;
  // How many of the steady iterations began in the first minute, in the second, and so on.
  std::vector<std::int64_t> steady_minutes;
  // Which limit ended the steady iterations: "iterations", "min_seconds" (that one was met last),
  // "max_seconds" or "max_samples".
  std::string stopped_by;
};

// What happens around the inferences, outside of what is timed.
struct Hooks {
  std::function<void()> after_first;    // keeps the outputs
  std::function<void()> before_steady;  // the warm-up is over
};

// Runs one inference by itself, then warm-up iterations until both warm-up limits are met, then
// steady iterations until `iterations` and `min_ns` are both met or `max_ns` is over; at least one
// steady iteration, but neither warm-up nor steady ones where `iterations` is 0. `max_ns` also ends
// the warm-up. Throws Failure(kInference).
Timings measure(Backend& backend, const Limits& limits, const Hooks& hooks,
                const std::string& model);

// Runs each of `count` inputs once: `give(i)` gives the backend the `i`th input, `keep` keeps its
// outputs. Throws Failure(kInference).
Timings run_each(Backend& backend, int count, const std::function<void(int)>& give,
                 const std::function<void()>& keep, const std::string& model);

}  // namespace pocketship
