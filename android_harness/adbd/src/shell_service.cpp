#include "shell_service.h"

#include <sys/epoll.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "packet.h"

namespace adbd {
namespace {

enum FrameKind : char {
  kStdin = 0,
  kStdout = 1,
  kStderr = 2,
  kExit = 3,
  kCloseStdin = 4,
  kWindowSize = 5
};

constexpr size_t kFrameHeader = 5;
constexpr size_t kMaxRead = 64 << 10;
constexpr size_t kMaxWindowText = 64;
constexpr char kEndOfFileKey = 4;  // ^D

ChildRequest ToChildRequest(const Options& options, const ShellRequest& request) {
  ChildRequest child;
  if (!request.program.empty()) {
    child.argv = {request.program};
  } else if (request.command.empty()) {
    child.argv = {options.shell};
  } else {
    child.argv = {options.shell, "-c", request.command};
  }
  child.environment = {"TERM=" + (request.terminal.empty() ? "dumb" : request.terminal),
                       "SHELL=" + options.shell};
  if (getenv("HOME") == nullptr) child.environment.emplace_back("HOME=/");
  if (!options.path_prefix.empty()) {
    const char* const path = getenv("PATH");
    child.environment.push_back("PATH=" + options.path_prefix + ":" +
                                (path != nullptr ? path : "/usr/sbin:/usr/bin:/sbin:/bin"));
  }
  child.pty = request.pty;
  child.separate_stderr = request.framed;
  return child;
}

void WriteFrameHeader(char* at, FrameKind kind, size_t length) {
  at[0] = kind;
  WriteU32(at + 1, static_cast<uint32_t>(length));
}

}  // namespace

ShellService::ShellService(const Context& context, const ShellRequest& request, Wake wake)
    : loop_(context.loop),
      children_(context.children),
      wake_(std::move(wake)),
      pty_(request.pty),
      framed_(request.framed),
      outlives_peer_(request.outlives_peer) {
  Child child = children_.Start(ToChildRequest(context.options, request), [this](int exit_code) {
    exit_code_ = exit_code;
    wake_();
  });
  pid_ = child.pid;
  input_ = std::move(child.input);
  output_.fd = std::move(child.output);
  error_.fd = std::move(child.error);
  try {
    Watch(output_);
    if (error_.fd) Watch(error_);
    input_watch_ = loop_.Add(input_.get(), 0, [this](uint32_t) {
      loop_.Change(input_watch_, 0);
      wake_();
    });
  } catch (...) {
    LetGo();
    throw;
  }
}

ShellService::~ShellService() { LetGo(); }

void ShellService::LetGo() {
  const bool ended = exit_code_ && OutputEnded();
  CloseInput();
  CloseSource(output_);
  CloseSource(error_);
  if (ended) {
    children_.Finish(pid_);
  } else {
    children_.Abandon(pid_);
  }
}

void ShellService::Watch(Source& source) {
  source.watch = loop_.Add(source.fd.get(), EPOLLIN, [this, &source](uint32_t) {
    source.readable = true;
    loop_.Change(source.watch, 0);  // until somebody has read it
    wake_();
  });
}

void ShellService::CloseSource(Source& source) {
  loop_.Remove(source.watch);
  source.fd.reset();
  source.readable = false;
}

size_t ShellService::ReadSource(Source& source, char* buffer, size_t capacity) {
  if (!source.readable) return 0;
  while (true) {
    const ssize_t count = read(source.fd.get(), buffer, std::min(capacity, kMaxRead));
    if (count > 0) return static_cast<size_t>(count);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) {
      source.readable = false;
      loop_.Change(source.watch, EPOLLIN);
    } else {
      CloseSource(source);  // a terminal ends with EIO, a pipe with 0
    }
    return 0;
  }
}

size_t ShellService::Produce(char* buffer, size_t capacity) {
  size_t count = 0;
  if (!framed_) {
    count = ReadSource(output_, buffer, capacity);
  } else {
    error_first_ = !error_first_;
    for (const bool error : {error_first_, !error_first_}) {
      if (capacity < count + kFrameHeader + 1) break;
      char* const frame = buffer + count;
      const size_t length = ReadSource(error ? error_ : output_, frame + kFrameHeader,
                                       capacity - count - kFrameHeader);
      if (length == 0) continue;
      WriteFrameHeader(frame, error ? kStderr : kStdout, length);
      count += kFrameHeader + length;
    }
    if (count == 0 && OutputEnded() && exit_code_ && !exit_sent_) {
      WriteFrameHeader(buffer, kExit, 1);
      buffer[kFrameHeader] = static_cast<char>(*exit_code_);
      exit_sent_ = true;
      count = kFrameHeader + 1;
    }
  }
  return count;
}

bool ShellService::Finished() const {
  return OutputEnded() && exit_code_.has_value() && (exit_sent_ || !framed_);
}

bool ShellService::OutlivesPeer() {
  if (outlives_peer_) CloseSource(output_);  // writing to nobody ends it with SIGPIPE
  return outlives_peer_;
}

size_t ShellService::Consume(std::string_view data) {
  return framed_ ? ConsumeFrames(data) : WriteInput(data);
}

size_t ShellService::ConsumeFrames(std::string_view data) {
  const size_t offered = data.size();
  while (!data.empty()) {
    if (frame_header_have_ < kFrameHeader) {
      frame_header_[frame_header_have_++] = data.front();
      data.remove_prefix(1);
      if (frame_header_have_ < kFrameHeader) continue;
      frame_left_ = ReadU32(frame_header_.data() + 1);
      window_size_.clear();
    } else {
      size_t count = std::min(frame_left_, data.size());
      if (frame_header_[0] == kStdin) {
        count = WriteInput(data.substr(0, count));
        if (count == 0) break;
      } else if (frame_header_[0] == kWindowSize && window_size_.size() < kMaxWindowText) {
        window_size_.append(data.substr(0, count), 0, kMaxWindowText);
      }
      data.remove_prefix(count);
      frame_left_ -= count;
    }
    if (frame_left_ == 0) {
      EndFrame();
      frame_header_have_ = 0;
    }
  }
  return offered - data.size();
}

void ShellService::EndFrame() {
  if (frame_header_[0] == kCloseStdin) {
    if (pty_) {
      WriteInput(std::string_view(&kEndOfFileKey, 1));
    } else {
      CloseInput();
    }
  } else if (frame_header_[0] == kWindowSize && pty_) {
    unsigned rows = 0;
    unsigned columns = 0;
    unsigned width = 0;
    unsigned height = 0;
    constexpr unsigned kMax = 0xffff;
    if (sscanf(window_size_.c_str(), "%5ux%5u,%5ux%5u", &rows, &columns, &width, &height) == 4 &&
        rows <= kMax && columns <= kMax && width <= kMax && height <= kMax && input_) {
      winsize size{};
      size.ws_row = static_cast<unsigned short>(rows);
      size.ws_col = static_cast<unsigned short>(columns);
      size.ws_xpixel = static_cast<unsigned short>(width);
      size.ws_ypixel = static_cast<unsigned short>(height);
      ioctl(input_.get(), TIOCSWINSZ, &size);
    }
  }
}

size_t ShellService::WriteInput(std::string_view data) {
  size_t written = 0;
  while (input_ && written < data.size()) {
    const ssize_t count = write(input_.get(), data.data() + written, data.size() - written);
    if (count >= 0) {
      written += static_cast<size_t>(count);
    } else if (errno == EAGAIN) {
      loop_.Change(input_watch_, EPOLLOUT);
      return written;
    } else if (errno != EINTR) {
      CloseInput();
    }
  }
  return data.size();  // nobody reads any more: the rest is dropped
}

void ShellService::CloseInput() {
  loop_.Remove(input_watch_);
  input_.reset();
}

}  // namespace adbd
