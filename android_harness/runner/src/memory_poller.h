// The memory of this process over time.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace pocketship {

// What was polled; the two lists are equally long.
struct MemorySamples {
  std::int64_t interval_ms = 0;
  // Index of the first sample after the warm-up.
  std::int64_t steady_from = 0;
  std::vector<std::int64_t> pss_kib;
  std::vector<std::int64_t> private_dirty_kib;
  // Why there is nothing; empty where there is something.
  std::string reason;
};

// Reads /proc/self/smaps_rollup again and again from a thread of its own. A thread, because that
// takes no permission, no other process, and nothing outlives the runner; the kernel's walk through
// the pages stops the computing threads now and then all the same, so times beside it mean nothing.
class MemoryPoller {
 public:
  explicit MemoryPoller(int interval_ms);
  ~MemoryPoller();
  MemoryPoller(const MemoryPoller&) = delete;
  MemoryPoller& operator=(const MemoryPoller&) = delete;

  // Samples from now on are of the steady state.
  void mark_steady();

  // Takes one more sample and ends the thread.
  MemorySamples stop();

 private:
  void poll();
  void sample();

  int fd_;
  MemorySamples samples_;
  bool stopping_ = false;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::thread thread_;
};

// The value of one line `Name:   123 kB` of smaps_rollup; -1 where there is none. The name is taken
// whole: "Pss" is not "Pss_Dirty".
std::int64_t rollup_kib(const std::string& text, const std::string& name);

}  // namespace pocketship
