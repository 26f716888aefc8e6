// "shell:", "shell,v2:" and "exec:": a program with its input and output.
#pragma once

#include <array>
#include <optional>
#include <string>

#include "services.h"

namespace adbd {

struct ShellRequest {
  std::string command;   // empty: an interactive shell
  std::string program;   // run this instead of a shell
  std::string terminal;  // TERM; empty: "dumb"
  bool pty = false;
  // Of the peer's CLSE: `adb exec-in` leaves as soon as it has sent everything, and what it started
  // has to finish.
  bool outlives_peer = false;
  bool framed = false;  // the v2 protocol: separate streams, exit code, end of input, window size
};

class ShellService : public Service {
 public:
  ShellService(const Context& context, const ShellRequest& request, Wake wake);
  ~ShellService() override;

  size_t Consume(std::string_view data) override;
  size_t Produce(char* buffer, size_t capacity) override;
  bool OutlivesPeer() override;
  void EndInput() override { CloseInput(); }
  bool Finished() const override;

 private:
  // One stream of the program's output.
  struct Source {
    UniqueFd fd;
    EventLoop::Watch watch = 0;
    bool readable = false;
  };

  void LetGo();
  void Watch(Source& source);
  void CloseSource(Source& source);
  size_t ReadSource(Source& source, char* buffer, size_t capacity);
  size_t WriteInput(std::string_view data);
  void CloseInput();
  size_t ConsumeFrames(std::string_view data);
  void EndFrame();
  bool OutputEnded() const { return !output_.fd && !error_.fd; }

  EventLoop& loop_;
  ChildProcesses& children_;
  Wake wake_;
  const bool pty_;
  const bool framed_;
  const bool outlives_peer_;
  pid_t pid_ = -1;
  UniqueFd input_;
  EventLoop::Watch input_watch_ = 0;
  Source output_;
  Source error_;
  bool error_first_ = false;  // alternates, so that neither output starves the other
  std::optional<int> exit_code_;
  bool exit_sent_ = false;

  // The frame of the v2 protocol that is coming in: one byte of kind, four of length, the content.
  std::array<char, 5> frame_header_{};
  size_t frame_header_have_ = 0;
  size_t frame_left_ = 0;
  std::string window_size_;
};

}  // namespace adbd
