// The JSON that the runner leaves.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backend.h"
#include "memory_poller.h"
#include "options.h"
#include "timing.h"

namespace pocketship {

// Everything that was measured; the member names are those of the JSON.
struct Result {
  std::string runtime_version;
  std::int64_t model_bytes = 0;
  bool affinity_applied = false;
  std::int64_t load_ns = 0;
  Timings timings;
  // Null in the JSON where the kernel does not tell.
  std::optional<std::int64_t> baseline_rss_kib;
  std::optional<std::int64_t> loaded_rss_kib;
  std::optional<std::int64_t> peak_rss_kib;
  // Only where it was asked for.
  std::optional<MemorySamples> memory;
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
};

std::string result_json(const Options& options, const Result& result);
std::string description_json(const Options& options, const Backend& backend);
std::string version_json();

}  // namespace pocketship
