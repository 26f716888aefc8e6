// The daemon's ChildProcesses without processes: commands of a fuzzer must not run. A "program"
// says a line on each of its outputs, takes what it is given and has ended with exit code 0.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "child_processes.h"

namespace adbd {
namespace {

constexpr char kSaid[] = "a line\n";

UniqueFd Output() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
    throw std::system_error(errno, std::generic_category(), "pipe2");
  }
  const UniqueFd writing(ends[1]);
  (void)!write(writing.get(), kSaid, sizeof kSaid - 1);
  return UniqueFd(ends[0]);
}

}  // namespace

ChildProcesses::ChildProcesses(EventLoop& loop) : loop_(loop) {}

Child ChildProcesses::Start(const ChildRequest& request, OnExit on_exit) {
  static pid_t last = 1000;
  Child child;
  child.pid = ++last;
  child.output = Output();
  if (request.separate_stderr) child.error = Output();
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
    throw std::system_error(errno, std::generic_category(), "socketpair");
  }
  child.input = UniqueFd(ends[0]);
  close(ends[1]);
  children_[child.pid].on_exit = std::move(on_exit);
  loop_.Defer([this, pid = child.pid] {
    const auto found = children_.find(pid);
    if (found == children_.end() || found->second.abandoned) return;
    found->second.exited = true;
    found->second.on_exit(0);
  });
  return child;
}

void ChildProcesses::Finish(pid_t pid) { children_.erase(pid); }

void ChildProcesses::Abandon(pid_t pid) { children_.erase(pid); }

void ChildProcesses::Poll() {}

void ChildProcesses::WhenEmpty(EventLoop::Task task) { loop_.Defer(std::move(task)); }

}  // namespace adbd
