#include "operator_tracer.h"

#include <cstring>

#include "json.h"

namespace pocketship {
namespace {

namespace et = executorch::runtime;

constexpr std::size_t kMaxEvents = 1'000'000;
constexpr std::size_t kMaxNames = 65'536;
constexpr std::size_t kMaxNameBytes = 256;
// The block that Method::execute begins.
constexpr const char* kInferenceBlock = "Execute";
constexpr std::int64_t kNotKept = -1;

}  // namespace

std::string OperatorTracer::json() const {
  std::vector<std::string> names;
  for (const std::string& name : names_) {
    names.push_back(quoted(name));
  }
  std::string events = "[";
  for (const Event& event : events_) {
    events += events.size() > 1 ? ",\n" : "";
    events += "[" + std::to_string(event.inference) + "," + (event.is_delegate ? "1" : "0") + "," +
              std::to_string(event.name) + "," + std::to_string(event.chain) + "," +
              std::to_string(event.instruction) + "," + std::to_string(event.begin) + "," +
              std::to_string(event.end) + "]";
  }
  JsonObject object;
  object.add("truncated", truncated_);
  object.add_json("names", json_array(names));
  object.add_json("events", events + "]");
  return object.str() + "\n";
}

void OperatorTracer::create_event_block(const char* name) {
  if (std::strcmp(name, kInferenceBlock) == 0) {
    ++inference_;
  }
}

et::EventTracerEntry OperatorTracer::start_profiling(const char* name, et::ChainID chain,
                                                     et::DebugHandle handle) {
  const bool unset = chain == et::kUnsetChainId;
  return begin(name, false, unset ? chain_id_ : chain, unset ? debug_handle_ : handle);
}

et::EventTracerEntry OperatorTracer::start_profiling_delegate(const char* name,
                                                              et::DelegateDebugIntId index) {
  return begin(name == nullptr ? "#" + std::to_string(index) : name, true, chain_id_,
               debug_handle_);
}

void OperatorTracer::end_profiling_delegate(et::EventTracerEntry entry, const void*, std::size_t) {
  end(entry);
}

void OperatorTracer::log_profiling_delegate(const char* name, et::DelegateDebugIntId index,
                                            et_timestamp_t begin, et_timestamp_t end, const void*,
                                            std::size_t) {
  const std::string text = name == nullptr ? "#" + std::to_string(index) : name;
  add({inference_, true, name_index(text), chain_id_, debug_handle_, begin, end});
}

void OperatorTracer::end_profiling(et::EventTracerEntry entry) { end(entry); }

std::uint32_t OperatorTracer::name_index(const std::string& name) {
  const std::string kept = name.substr(0, kMaxNameBytes);
  const auto found = indices_.find(kept);
  if (found != indices_.end()) {
    return found->second;
  }
  if (names_.size() >= kMaxNames) {
    truncated_ = true;
    return 0;
  }
  const auto index = static_cast<std::uint32_t>(names_.size());
  names_.push_back(kept);
  indices_.emplace(kept, index);
  return index;
}

et::EventTracerEntry OperatorTracer::begin(const std::string& name, bool is_delegate,
                                           et::ChainID chain, et::DebugHandle handle) {
  et::EventTracerEntry entry{};
  const std::size_t place = events_.size();
  entry.event_id = kNotKept;
  if (add({inference_, is_delegate, name_index(name), chain, handle, 0, 0})) {
    entry.event_id = static_cast<std::int64_t>(place);
    // The last thing before the work, so that keeping notes is not in it.
    events_[place].begin = et_pal_current_ticks();
  }
  return entry;
}

void OperatorTracer::end(const et::EventTracerEntry& entry) {
  const et_timestamp_t now = et_pal_current_ticks();
  if (entry.event_id != kNotKept) {
    events_[static_cast<std::size_t>(entry.event_id)].end = now;
  }
}

bool OperatorTracer::add(const Event& event) {
  // What belongs to the load is not an inference's.
  if (inference_ < 0 || truncated_) {
    return false;
  }
  if (events_.size() >= kMaxEvents) {
    truncated_ = true;
    return false;
  }
  events_.push_back(event);
  return true;
}

}  // namespace pocketship
