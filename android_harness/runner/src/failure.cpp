#include "failure.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "text.h"

namespace pocketship {
namespace {

constexpr std::size_t kMaxPath = 4096;
constexpr std::size_t kMaxLine = kMaxPath + 512;
constexpr int kMaxRemovals = 4;
constexpr std::size_t kSignalStackBytes = 64 * 1024;

// All that the signal handlers read lies in fixed memory.
int real_stdout = STDOUT_FILENO;
int real_stderr = STDERR_FILENO;
std::atomic<int> phase_exit_code{kRuntime};
char phase_where[kMaxPath];
char removals[kMaxRemovals][kMaxPath];
std::atomic<int> removal_count{0};

void remove_registered() {
  for (int i = 0; i < removal_count.load(); ++i) {
    unlink(removals[i]);
  }
}

bool write_all(int fd, const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t written = write(fd, data, size);
    if (written <= 0) {
      return false;
    }
    data += written;
    size -= static_cast<std::size_t>(written);
  }
  return true;
}

const char* signal_name(int number) {
  switch (number) {
    case SIGSEGV:
      return "SIGSEGV";
    case SIGABRT:
      return "SIGABRT";
    case SIGBUS:
      return "SIGBUS";
    case SIGFPE:
      return "SIGFPE";
    case SIGILL:
      return "SIGILL";
    default:
      return "a signal";
  }
}

// Appends to a fixed buffer; async-signal-safe.
void append(char* line, std::size_t& length, const char* text) {
  while (*text != '\0' && length + 2 < kMaxLine) {
    line[length++] = *text++;
  }
}

void on_crash(int number) {
  remove_registered();
  char line[kMaxLine];
  std::size_t length = 0;
  const int code = phase_exit_code.load();
  append(line, length, "bench_runner: the runtime crashed with ");
  append(line, length, signal_name(number));
  append(line, length,
         code == kModel       ? " while it loaded the model: "
         : code == kInference ? " during an inference: "
                              : " while it was opened: ");
  append(line, length, phase_where);
  line[length++] = '\n';
  write_all(real_stderr, line, length);
  _exit(code);
}

void on_stop(int number) {
  remove_registered();
  // The default action was restored by SA_RESETHAND: die of the signal that came.
  raise(number);
}

void handle(int number, void (*handler)(int), int flags) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  sigemptyset(&action.sa_mask);
  sigaction(number, &action, nullptr);
}

}  // namespace

void enter_phase(Phase phase, const std::string& where) {
  const std::string line = one_line(where, kMaxPath - 1);
  std::memcpy(phase_where, line.c_str(), line.size() + 1);
  phase_exit_code.store(static_cast<int>(phase));
}

void contain_runtimes() {
  // Close-on-exec copies of the real streams; the runtimes see only the null device.
  real_stdout = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
  real_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
  const int null_device = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null_device >= 0) {
    dup2(null_device, STDOUT_FILENO);
    dup2(null_device, STDERR_FILENO);
  }
  // A stack of its own, because a deeply nested model can exhaust the ordinary one.
  static char signal_stack[kSignalStackBytes];
  stack_t stack = {};
  stack.ss_sp = signal_stack;
  stack.ss_size = sizeof(signal_stack);
  sigaltstack(&stack, nullptr);
  for (const int number : {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL}) {
    handle(number, on_crash, SA_ONSTACK | SA_NODEFER);
  }
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    handle(number, on_stop, SA_RESETHAND | SA_NODEFER);
  }
}

void remove_when_killed(const std::string& path) {
  const int index = removal_count.load();
  if (index < kMaxRemovals && path.size() < kMaxPath) {
    std::memcpy(removals[index], path.c_str(), path.size() + 1);
    removal_count.store(index + 1);
  }
}

void print_failure(const std::string& message) {
  const std::string line = one_line("bench_runner: " + message, kMaxLine) + "\n";
  write_all(real_stderr, line.data(), line.size());
}

int fail_in_phase(const std::string& reason) {
  print_failure(reason + ": " + phase_where);
  return phase_exit_code.load();
}

bool print_answer(const std::string& text) {
  return write_all(real_stdout, text.data(), text.size());
}

}  // namespace pocketship
