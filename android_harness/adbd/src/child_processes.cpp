#include "child_processes.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <system_error>

namespace adbd {
namespace {

constexpr rlim_t kWantedFiles = 16384;
constexpr std::chrono::milliseconds kGrace{1000};
constexpr int kCannotStart = 126;
constexpr int kSignalBase = 128;

[[noreturn]] void Throw(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

struct Pipe {
  UniqueFd read_end;
  UniqueFd write_end;
};

Pipe MakePipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) Throw("pipe2");
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

void MakeNonBlocking(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) Throw("fcntl");
}

// The child's descriptors 0, 1 and 2.
struct Standard {
  UniqueFd input;
  UniqueFd output;
  UniqueFd error;
};

Standard OpenPipes(Child& child, bool separate_stderr) {
  Pipe input = MakePipe();
  Pipe output = MakePipe();
  Standard standard{std::move(input.read_end), std::move(output.write_end), UniqueFd()};
  child.input = std::move(input.write_end);
  child.output = std::move(output.read_end);
  if (separate_stderr) {
    Pipe error = MakePipe();
    standard.error = std::move(error.write_end);
    child.error = std::move(error.read_end);
  }
  return standard;
}

Standard OpenTerminal(Child& child) {
  UniqueFd master(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  char name[64];
  if (!master || grantpt(master.get()) != 0 || unlockpt(master.get()) != 0) Throw("openpt");
  if (ptsname_r(master.get(), name, sizeof name) != 0) Throw("ptsname");
  Standard standard;
  standard.input = UniqueFd(open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!standard.input) Throw("open terminal");
  child.input = UniqueFd(fcntl(master.get(), F_DUPFD_CLOEXEC, 0));
  if (!child.input) Throw("dup");
  child.output = std::move(master);
  return standard;
}

// The daemon's environment with `changes` in the place of what they redefine.
std::vector<std::string> Environment(const std::vector<std::string>& changes) {
  std::vector<std::string> result = changes;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const std::string_view name = text.substr(0, text.find('=') + 1);
    const bool changed =
        std::any_of(changes.begin(), changes.end(),
                    [&](const std::string& change) { return change.rfind(name, 0) == 0; });
    if (!changed) result.emplace_back(text);
  }
  return result;
}

std::vector<char*> Pointers(std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  return pointers;
}

[[noreturn]] void RunChild(const Standard& standard, bool pty, const rlimit& limit, char** argv,
                           char** environment) {
  setsid();
  // A daemon that was started below nohup or a shell's & ignores these, and they are inherited.
  for (const int number : {SIGHUP, SIGINT, SIGQUIT, SIGPIPE}) signal(number, SIG_DFL);
  prctl(PR_SET_PDEATHSIG, SIGHUP);  // a killed daemon leaves no shells behind
  if (pty) ioctl(standard.input.get(), TIOCSCTTY, 0);
  const int output = standard.output ? standard.output.get() : standard.input.get();
  dup2(standard.input.get(), STDIN_FILENO);
  dup2(output, STDOUT_FILENO);
  dup2(standard.error ? standard.error.get() : output, STDERR_FILENO);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  setrlimit(RLIMIT_NOFILE, &limit);
  if (chdir("/") == 0) execve(argv[0], argv, environment);
  dprintf(STDERR_FILENO, "adbd: cannot run %s: %s\n", argv[0], strerror(errno));
  _exit(kCannotStart);
}

void Signal(pid_t pid, int number) {
  // Between fork and setsid the group does not exist yet.
  if (kill(-pid, number) != 0) kill(pid, number);
}

}  // namespace

ChildProcesses::ChildProcesses(EventLoop& loop) : loop_(loop) {
  if (getrlimit(RLIMIT_NOFILE, &original_limit_) != 0) Throw("getrlimit");
  rlimit raised = original_limit_;
  raised.rlim_cur = std::max(raised.rlim_cur, std::min(raised.rlim_max, kWantedFiles));
  setrlimit(RLIMIT_NOFILE, &raised);
}

Child ChildProcesses::Start(const ChildRequest& request, OnExit on_exit) {
  Child child;
  const Standard standard =
      request.pty ? OpenTerminal(child) : OpenPipes(child, request.separate_stderr);
  MakeNonBlocking(child.input.get());
  MakeNonBlocking(child.output.get());
  if (child.error) MakeNonBlocking(child.error.get());

  std::vector<std::string> arguments = request.argv;
  std::vector<std::string> environment = Environment(request.environment);
  const std::vector<char*> argv = Pointers(arguments);
  const std::vector<char*> envp = Pointers(environment);
  child.pid = fork();
  if (child.pid < 0) Throw("fork");
  if (child.pid == 0) {
    RunChild(standard, request.pty, original_limit_, const_cast<char**>(argv.data()),
             const_cast<char**>(envp.data()));
  }
  children_[child.pid].on_exit = std::move(on_exit);
  return child;
}

void ChildProcesses::Finish(pid_t pid) { Reap(pid); }

void ChildProcesses::Abandon(pid_t pid) {
  Record& record = children_.at(pid);
  record.abandoned = true;
  record.on_exit = nullptr;
  Signal(pid, SIGHUP);
  Signal(pid, SIGCONT);  // a stopped program would not see the SIGHUP
  loop_.After(kGrace, [this, pid] {
    Record& doomed = children_.at(pid);
    Signal(pid, SIGKILL);
    doomed.killed = true;
    if (doomed.exited) Reap(pid);
  });
}

void ChildProcesses::Poll() {
  std::vector<std::pair<pid_t, int>> ended;
  for (auto& [pid, record] : children_) {
    siginfo_t info{};
    if (record.exited) continue;
    if (waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) != 0) continue;
    if (info.si_pid == 0) continue;
    record.exited = true;
    ended.emplace_back(pid,
                       info.si_code == CLD_EXITED ? info.si_status : kSignalBase + info.si_status);
  }
  // The callbacks start and end children, so they run when nobody walks over the table.
  for (const auto& [pid, exit_code] : ended) {
    const auto found = children_.find(pid);
    if (found == children_.end()) continue;
    if (found->second.killed) {
      Reap(pid);
    } else if (found->second.on_exit) {
      const OnExit on_exit = found->second.on_exit;
      on_exit(exit_code);
    }
  }
}

void ChildProcesses::WhenEmpty(EventLoop::Task task) {
  when_empty_ = std::move(task);
  if (children_.empty()) when_empty_();
}

void ChildProcesses::Reap(pid_t pid) {
  waitpid(pid, nullptr, 0);
  children_.erase(pid);
  if (children_.empty() && when_empty_) when_empty_();
}

}  // namespace adbd
