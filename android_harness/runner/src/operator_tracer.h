// What ExecuTorch tells of its operators while it runs.
#pragma once

#include <executorch/runtime/core/event_tracer.h>
#include <executorch/runtime/platform/platform.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace pocketship {

// Keeps the profiling events of every inference in memory. ETDump (the runtime's own tracer) keeps
// them in a flatbuffer, which would need its library here and its reader on the other side.
class OperatorTracer final : public executorch::runtime::EventTracer {
 public:
  OperatorTracer() {
    set_event_tracer_profiling_level(
        executorch::runtime::EventTracerProfilingLevel::kProfileAllEvents);
  }

  // {"truncated": bool, "names": [text], "events": [[inference, is_delegate, name, chain,
  // instruction, begin, end]]}: `inference` counts from 0, `name` is an index, times are
  // nanoseconds.
  std::string json() const;

  void create_event_block(const char* name) override;
  executorch::runtime::EventTracerEntry start_profiling(
      const char* name, executorch::runtime::ChainID chain,
      executorch::runtime::DebugHandle handle) override;
  executorch::runtime::EventTracerEntry start_profiling_delegate(
      const char* name, executorch::runtime::DelegateDebugIntId index) override;
  void end_profiling_delegate(executorch::runtime::EventTracerEntry entry, const void* metadata,
                              std::size_t metadata_length) override;
  void log_profiling_delegate(const char* name, executorch::runtime::DelegateDebugIntId index,
                              et_timestamp_t begin, et_timestamp_t end, const void* metadata,
                              std::size_t metadata_length) override;
  void end_profiling(executorch::runtime::EventTracerEntry entry) override;

  // Memory and values are of no interest here.
  void track_allocation(executorch::runtime::AllocatorID, std::size_t) override {}
  executorch::runtime::AllocatorID track_allocator(const char*) override { return 0; }
  executorch::runtime::Result<bool> log_evalue(const executorch::runtime::EValue&,
                                               executorch::runtime::LoggedEValueType) override {
    return false;
  }
  executorch::runtime::Result<bool> log_intermediate_output_delegate(
      const char*, executorch::runtime::DelegateDebugIntId,
      const executorch::aten::Tensor&) override {
    return false;
  }
  executorch::runtime::Result<bool> log_intermediate_output_delegate(
      const char*, executorch::runtime::DelegateDebugIntId,
      const executorch::runtime::ArrayRef<executorch::aten::Tensor>) override {
    return false;
  }
  executorch::runtime::Result<bool> log_intermediate_output_delegate(
      const char*, executorch::runtime::DelegateDebugIntId, const int&) override {
    return false;
  }
  executorch::runtime::Result<bool> log_intermediate_output_delegate(
      const char*, executorch::runtime::DelegateDebugIntId, const bool&) override {
    return false;
  }
  executorch::runtime::Result<bool> log_intermediate_output_delegate(
      const char*, executorch::runtime::DelegateDebugIntId, const double&) override {
    return false;
  }
  void set_delegation_intermediate_output_filter(
      executorch::runtime::EventTracerFilterBase*) override {}

 private:
  struct Event {
    std::int32_t inference;
    bool is_delegate;
    std::uint32_t name;
    std::int32_t chain;
    std::uint32_t instruction;
    et_timestamp_t begin;
    et_timestamp_t end;
  };

  std::uint32_t name_index(const std::string& name);
  executorch::runtime::EventTracerEntry begin(const std::string& name, bool is_delegate,
                                              executorch::runtime::ChainID chain,
                                              executorch::runtime::DebugHandle handle);
  void end(const executorch::runtime::EventTracerEntry& entry);
  bool add(const Event& event);

  std::int32_t inference_ = -1;
  bool truncated_ = false;
  std::map<std::string, std::uint32_t> indices_;
  std::vector<std::string> names_;
  std::vector<Event> events_;
};

}  // namespace pocketship
