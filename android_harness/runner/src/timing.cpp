#include "timing.h"

#include <algorithm>

#include "failure.h"
#include "process.h"

namespace pocketship {
namespace {

// Samples for which memory is there before the loop; more come from growing between inferences.
constexpr std::int64_t kReservedSamples = 1 << 16;
constexpr std::int64_t kMinuteNs = 60'000'000'000;

struct Sample {
  std::int64_t begin_ns;
  std::int64_t end_ns;
};

// On the emulated phone a nanosecond is an instruction: nothing but the runtime's call may stand
// between the two clock reads.
Sample run_once(Backend& backend, const std::string& model) {
  backend.before_inference();
  const std::int64_t begin = monotonic_ns();
  const bool ok = backend.execute();
  const std::int64_t end = monotonic_ns();
  if (!ok) {
    throw Failure(kInference, "the inference failed (" + backend.failure_reason() + ")", model);
  }
  return {begin, end};
}

// Why a phase of iterations is over; null: it goes on.
const char* limit_reached(std::int64_t count, std::int64_t elapsed_ns, std::int64_t min_count,
                          std::int64_t min_ns, std::int64_t max_ns) {
  if (count >= min_count && elapsed_ns >= min_ns) {
    return "iterations";
  }
  if (count > 0 && elapsed_ns >= max_ns) {
    return "max_seconds";
  }
  return count >= kMaxSamples ? "max_samples" : nullptr;
}

}  // namespace

Timings measure(Backend& backend, const Limits& limits, const Hooks& hooks,
                const std::string& model) {
  Timings timings;
  const auto reserved = [](std::int64_t count) {
    return static_cast<std::size_t>(std::max(count, kReservedSamples));
  };
  timings.warmup_ns.reserve(reserved(limits.warmup_iterations));
  timings.steady_ns.reserve(reserved(limits.iterations));

  const Sample first = run_once(backend, model);
  timings.first_ns = first.end_ns - first.begin_ns;
  hooks.after_first();
  if (limits.iterations == 0) {
    hooks.before_steady();
    timings.stopped_by = "iterations";
    return timings;
  }

  std::int64_t start = monotonic_ns();
  std::int64_t elapsed = 0;
  while (limit_reached(static_cast<std::int64_t>(timings.warmup_ns.size()), elapsed,
                       limits.warmup_iterations, limits.warmup_ns, limits.max_ns) == nullptr) {
    const Sample sample = run_once(backend, model);
    timings.warmup_ns.push_back(sample.end_ns - sample.begin_ns);
    elapsed = sample.end_ns - start;
  }

  hooks.before_steady();
  start = monotonic_ns();
  std::int64_t met_ns = 0;  // when the number of iterations was reached
  const char* stopped_by = nullptr;
  do {
    const Sample sample = run_once(backend, model);
    timings.steady_ns.push_back(sample.end_ns - sample.begin_ns);
    elapsed = sample.end_ns - start;
    const auto minute = static_cast<std::size_t>((sample.begin_ns - start) / kMinuteNs);
    if (timings.steady_minutes.size() <= minute) {
      timings.steady_minutes.resize(minute + 1);
    }
    ++timings.steady_minutes[minute];
    const auto count = static_cast<std::int64_t>(timings.steady_ns.size());
    met_ns = count == limits.iterations ? elapsed : met_ns;
    stopped_by = limit_reached(count, elapsed, limits.iterations, limits.min_ns, limits.max_ns);
  } while (stopped_by == nullptr);
  // Iterations went on after their number was reached: it was the time that was waited for.
  const bool waited = std::string(stopped_by) == "iterations" && met_ns < limits.min_ns;
  timings.stopped_by = waited ? "min_seconds" : stopped_by;
  return timings;
}

Timings run_each(Backend& backend, int count, const std::function<void(int)>& give,
                 const std::function<void()>& keep, const std::string& model) {
  Timings timings;
  for (int i = 0; i < count; ++i) {
    give(i);
    const Sample sample = run_once(backend, model);
    timings.first_ns = i == 0 ? sample.end_ns - sample.begin_ns : timings.first_ns;
    keep();
  }
  timings.stopped_by = "samples";
  return timings;
}

}  // namespace pocketship
