// How the runner fails: one exception with an exit code, one line on stderr.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

namespace pocketship {

// The documented exit codes; 0 is success.
enum ExitCode : int {
  kUsage = 2,       // bad usage
  kModel = 3,       // the model cannot be loaded
  kInputs = 4,      // the inputs do not fit the model
  kRuntime = 5,     // a runtime library is missing or has the wrong version
  kInference = 6,   // the inference failed
  kUnwritable = 7,  // the result or the outputs cannot be written
};

// Thrown by the runner and by its backends, which are built by the same compiler and share one
// C++ runtime library.
class Failure : public std::runtime_error {
 public:
  // `what` is cut where a runtime tells a long story, so that `where` is always seen.
  Failure(ExitCode code, const std::string& what, const std::string& where)
      : std::runtime_error(what.substr(0, kMaxWhat) + ": " + where), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  static constexpr std::size_t kMaxWhat = 400;
  ExitCode code_;
};

// What the runner is about: it decides what a crash of a runtime is reported as.
enum class Phase : int { kRuntimeLibrary = kRuntime, kLoading = kModel, kInferring = kInference };

// Announces the phase and what it works on (for the line that a crash leaves).
void enter_phase(Phase phase, const std::string& where);

// Sends whatever the runtimes write to stdout and stderr to nowhere, and makes the crash signals of
// this process (SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL) end it with one line and the phase's exit
// code. Runtimes parse files that nobody trusts, and they do crash.
void contain_runtimes();

// Has `path` removed when the process ends by a signal that can be caught. At most four paths.
void remove_when_killed(const std::string& path);

// Prints what a runtime threw unexpectedly and returns the exit code of the current phase.
int fail_in_phase(const std::string& reason);

// Writes "bench_runner: <message>\n" to the real stderr: control characters become spaces, the
// length is limited, so that it is one line whatever a model or a runtime put into it.
void print_failure(const std::string& message);

// Writes `text` to the real stdout; false when that fails.
bool print_answer(const std::string& text);

}  // namespace pocketship
