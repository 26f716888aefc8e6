#include "memory_poller.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>

namespace pocketship {
namespace {

// Half an hour at 50 ms; later samples are left out, the last one is always taken.
constexpr std::size_t kMaxPolled = 36'000;
constexpr std::size_t kRollupBytes = 4096;

}  // namespace

std::int64_t rollup_kib(const std::string& text, const std::string& name) {
  const std::string wanted = "\n" + name + ":";
  const std::size_t found = text.find(wanted);  // the first line is the address range
  if (found == std::string::npos) {
    return -1;
  }
  const char* begin = text.c_str() + found + wanted.size();
  char* end = nullptr;
  const long long kib = std::strtoll(begin, &end, 10);
  return end != begin && kib >= 0 && std::strncmp(end, " kB\n", 4) == 0 ? kib : -1;
}

MemoryPoller::MemoryPoller(int interval_ms)
    : fd_(open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC)) {
  samples_.interval_ms = interval_ms;
  if (fd_ < 0) {
    samples_.reason =
        std::string("/proc/self/smaps_rollup cannot be read (") + std::strerror(errno) + ")";
    return;
  }
  thread_ = std::thread([this] { poll(); });
}

MemoryPoller::~MemoryPoller() { stop(); }

void MemoryPoller::mark_steady() {
  const std::lock_guard<std::mutex> lock(mutex_);
  samples_.steady_from = static_cast<std::int64_t>(samples_.pss_kib.size());
}

MemorySamples MemoryPoller::stop() {
  if (thread_.joinable()) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_one();
    thread_.join();
    sample();
    close(fd_);
  }
  return samples_;
}

void MemoryPoller::poll() {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto interval = std::chrono::milliseconds(samples_.interval_ms);
  while (!stopping_) {
    if (samples_.pss_kib.size() < kMaxPolled) {
      sample();
    }
    wake_.wait_for(lock, interval, [this] { return stopping_; });
  }
}

void MemoryPoller::sample() {
  char text[kRollupBytes];
  const ssize_t length = pread(fd_, text, sizeof(text), 0);
  const std::string rollup(text, length > 0 ? static_cast<std::size_t>(length) : 0);
  const std::int64_t pss = rollup_kib(rollup, "Pss");
  const std::int64_t dirty = rollup_kib(rollup, "Private_Dirty");
  if (pss < 0 || dirty < 0) {
    samples_.reason = "/proc/self/smaps_rollup does not say Pss and Private_Dirty";
    return;
  }
  samples_.pss_kib.push_back(pss);
  samples_.private_dirty_kib.push_back(dirty);
}

}  // namespace pocketship
