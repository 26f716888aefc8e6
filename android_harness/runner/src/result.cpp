#include "result.h"

#include "json.h"
#include "process.h"

namespace pocketship {
namespace {

std::string specs_json(const std::vector<TensorSpec>& specs) {
  std::vector<std::string> values;
  for (const TensorSpec& spec : specs) {
    JsonObject object;
    object.add("name", spec.name);
    object.add("dtype", spec.dtype);
    object.add("shape", spec.shape);
    if (spec.is_static()) {
      object.add("bytes", static_cast<std::int64_t>(spec.bytes()));
    } else {
      object.add_json("bytes", "null");
    }
    values.push_back(object.str());
  }
  return json_array(values);
}

void add_kib(JsonObject& object, const char* key, const std::optional<std::int64_t>& kib) {
  if (kib) {
    object.add(key, *kib);
  } else {
    object.add_json(key, "null");
  }
}

std::string memory_json(const MemorySamples& memory) {
  JsonObject object;
  object.add("interval_ms", memory.interval_ms);
  object.add("steady_from", memory.steady_from);
  object.add("pss_kib", memory.pss_kib);
  object.add("private_dirty_kib", memory.private_dirty_kib);
  object.add("reason", memory.reason);
  return object.str();
}

}  // namespace

std::string result_json(const Options& options, const Result& result) {
  JsonObject object;
  object.add("schema", std::int64_t{1});
  object.add("runner_version", PS_RUNNER_VERSION);
  object.add("backend", options.backend);
  object.add("runtime_version", result.runtime_version);
  object.add("arch", architecture());
  object.add("model_bytes", result.model_bytes);
  object.add("threads", std::int64_t{options.threads});
  if (options.cpu_mask.empty()) {
    object.add_json("cpu_mask", "null");
  } else {
    object.add("cpu_mask", "0x" + options.cpu_mask);
  }
  object.add("affinity_applied", result.affinity_applied);
  object.add("load_ns", result.load_ns);
  object.add("first_ns", result.timings.first_ns);
  object.add("warmup_ns", result.timings.warmup_ns);
  object.add("steady_ns", result.timings.steady_ns);
  object.add("steady_minutes", result.timings.steady_minutes);
  object.add("stopped_by", result.timings.stopped_by);
  object.add("samples", std::int64_t{options.samples});
  add_kib(object, "baseline_rss_kib", result.baseline_rss_kib);
  add_kib(object, "loaded_rss_kib", result.loaded_rss_kib);
  add_kib(object, "peak_rss_kib", result.peak_rss_kib);
  object.add_json("memory", result.memory ? memory_json(*result.memory) : "null");
  object.add_json("inputs", specs_json(result.inputs));
  object.add_json("outputs", specs_json(result.outputs));
  return object.str() + "\n";
}

std::string description_json(const Options& options, const Backend& backend) {
  JsonObject object;
  object.add("backend", options.backend);
  object.add("runtime_version", backend.runtime_version());
  object.add_json("inputs", specs_json(backend.inputs()));
  object.add_json("outputs", specs_json(backend.outputs()));
  return object.str() + "\n";
}

std::string version_json() {
  JsonObject object;
  object.add("runner_version", PS_RUNNER_VERSION);
  object.add("arch", architecture());
  return object.str() + "\n";
}

}  // namespace pocketship
