// Programs that run for a stream: started, watched, ended as a group, and always reaped.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "event_loop.h"
#include "unique_fd.h"

namespace adbd {

struct ChildRequest {
  std::vector<std::string> argv;         // argv[0] is an absolute path
  std::vector<std::string> environment;  // NAME=value, on top of the daemon's own
  bool pty = false;
  bool separate_stderr = false;  // without a pty only; else both go to `output`
};

// Our ends; they do not block. With a pty `input` and `output` are both its master.
struct Child {
  pid_t pid = -1;
  UniqueFd input;
  UniqueFd output;
  UniqueFd error;
};

class ChildProcesses {
 public:
  using OnExit = std::function<void(int exit_code)>;

  // Raises the limit of open files for this process; children get back the old one.
  explicit ChildProcesses(EventLoop& loop);

  // Starts a program in a session of its own with / as working directory. `on_exit` gets the exit
  // code, or 128 + the signal's number. Throws std::system_error.
  Child Start(const ChildRequest& request, OnExit on_exit);

  // The owner has seen the end of everything: reap, and leave alone what the program put into the
  // background.
  void Finish(pid_t pid);

  // The owner is gone early: SIGHUP to the whole process group, SIGKILL after a second.
  void Abandon(pid_t pid);

  // To be called after SIGCHLD.
  void Poll();

  // Runs `task` as soon as no child is left.
  void WhenEmpty(EventLoop::Task task);

 private:
  struct Record {
    OnExit on_exit;
    bool exited = false;
    bool abandoned = false;
    bool killed = false;
  };

  void Reap(pid_t pid);

  EventLoop& loop_;
  rlimit original_limit_{};
  // A child stays a zombie until its owner lets go, which keeps its process group's number ours.
  std::unordered_map<pid_t, Record> children_;
  EventLoop::Task when_empty_;
};

}  // namespace adbd
