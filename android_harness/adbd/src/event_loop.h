// The one thread of the daemon: waits for descriptors and timers and calls who asked for them.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "unique_fd.h"

namespace adbd {

class EventLoop {
 public:
  using Handler = std::function<void(uint32_t events)>;
  using Task = std::function<void()>;
  using Watch = uint64_t;

  EventLoop();

  // Calls `handler` with EPOLL* bits whenever `fd` has one of `events`. Level triggered. Events of
  // 0 mean that nothing is reported, not even a hang-up. Remove the watch before closing `fd`.
  // Throws std::system_error where the kernel refuses.
  Watch Add(int fd, uint32_t events, Handler handler);
  void Change(Watch watch, uint32_t events);
  void Remove(Watch watch);

  // Runs `task` once the handlers of this round have returned: the safe place to destroy a handler.
  void Defer(Task task);

  void After(std::chrono::milliseconds delay, Task task);

  void Run();
  void Stop() { stopped_ = true; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Entry {
    int fd;
    uint32_t events;
    Handler handler;
  };

  int Timeout() const;
  void RunTimers();
  void RunDeferred();

  UniqueFd epoll_;
  uint64_t next_id_ = 1;
  bool stopped_ = false;
  // Keyed by a number that is never used again: an event that was fetched for a closed descriptor
  // cannot reach the next owner of the same descriptor number.
  std::unordered_map<Watch, std::shared_ptr<Entry>> entries_;
  std::multimap<Clock::time_point, Task> timers_;
  std::vector<Task> deferred_;
};

}  // namespace adbd
