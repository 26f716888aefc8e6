#include "event_loop.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <system_error>

namespace adbd {
namespace {

[[noreturn]] void Throw(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

EventLoop::EventLoop() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
  if (!epoll_) Throw("epoll_create1");
}

EventLoop::Watch EventLoop::Add(int fd, uint32_t events, Handler handler) {
  const Watch watch = next_id_++;
  entries_.emplace(watch, std::make_shared<Entry>(Entry{fd, 0, std::move(handler)}));
  try {
    Change(watch, events);
  } catch (...) {
    entries_.erase(watch);
    throw;
  }
  return watch;
}

void EventLoop::Change(Watch watch, uint32_t events) {
  const auto found = entries_.find(watch);
  if (found == entries_.end() || found->second->events == events) return;
  Entry& entry = *found->second;
  epoll_event event{};
  event.events = events;
  event.data.u64 = watch;
  // EPOLLHUP is reported even where no event is asked for, so "nothing" has to mean "not watched".
  const int operation = events == 0         ? EPOLL_CTL_DEL
                        : entry.events == 0 ? EPOLL_CTL_ADD
                                            : EPOLL_CTL_MOD;
  if (epoll_ctl(epoll_.get(), operation, entry.fd, &event) != 0) Throw("epoll_ctl");
  entry.events = events;
}

void EventLoop::Remove(Watch watch) {
  const auto found = entries_.find(watch);
  if (found == entries_.end()) return;
  if (found->second->events != 0) {
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, found->second->fd, nullptr);
  }
  entries_.erase(found);
}

void EventLoop::Defer(Task task) { deferred_.push_back(std::move(task)); }

void EventLoop::After(std::chrono::milliseconds delay, Task task) {
  timers_.emplace(Clock::now() + delay, std::move(task));
}

void EventLoop::Run() {
  std::array<epoll_event, 64> events;
  while (!stopped_) {
    const int count =
        epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), Timeout());
    if (count < 0 && errno != EINTR) Throw("epoll_wait");
    for (int i = 0; i < count; ++i) {
      const Watch watch = events[i].data.u64;  // a copy: epoll_event is packed on x86-64
      const auto found = entries_.find(watch);
      if (found == entries_.end()) continue;
      const std::shared_ptr<Entry> entry = found->second;  // the handler may remove itself
      entry->handler(events[i].events);
    }
    RunTimers();
    RunDeferred();
  }
}

int EventLoop::Timeout() const {
  if (!deferred_.empty()) return 0;
  if (timers_.empty()) return -1;
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(timers_.begin()->first - Clock::now()).count();
  return static_cast<int>(std::clamp<decltype(left)>(left, 0, INT_MAX));
}

void EventLoop::RunTimers() {
  while (!timers_.empty() && timers_.begin()->first <= Clock::now()) {
    const Task task = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    task();
  }
}

void EventLoop::RunDeferred() {
  std::vector<Task> tasks;
  tasks.swap(deferred_);
  for (const Task& task : tasks) task();
}

}  // namespace adbd
