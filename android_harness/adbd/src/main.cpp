// A device-side ADB daemon for Linux: see docs/adbd.md.

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <system_error>

#include "child_processes.h"
#include "event_loop.h"
#include "options.h"
#include "server.h"

namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

// A started program must not find 0, 1 or 2 taken by a socket of ours.
void OpenStandardDescriptors() {
  int fd = 0;
  while (fd >= 0 && fd <= STDERR_FILENO) fd = open("/dev/null", O_RDWR);
  if (fd > STDERR_FILENO) close(fd);
}

adbd::UniqueFd CatchSignals() {
  signal(SIGPIPE, SIG_IGN);
  sigset_t caught;
  sigemptyset(&caught);
  for (const int number : {SIGCHLD, SIGTERM, SIGINT}) sigaddset(&caught, number);
  sigprocmask(SIG_BLOCK, &caught, nullptr);
  return adbd::UniqueFd(signalfd(-1, &caught, SFD_CLOEXEC | SFD_NONBLOCK));
}

int Serve(const adbd::Options& options) {
  const adbd::UniqueFd signals = CatchSignals();
  if (!signals) throw std::system_error(errno, std::generic_category(), "signalfd");
  adbd::EventLoop loop;
  adbd::ChildProcesses children(loop);
  const adbd::Context context{options, loop, children};
  adbd::Server server(context);
  bool ending = false;
  loop.Add(signals.get(), EPOLLIN, [&](uint32_t) {
    signalfd_siginfo info;
    while (read(signals.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
      if (info.ssi_signo == SIGCHLD) {
        children.Poll();
      } else if (!ending) {
        ending = true;
        server.Shutdown();
      } else {
        loop.Stop();  // asked twice: do not wait for programs that will not die
      }
    }
  });
  fprintf(stderr, "adbd: listening on %s%s\n", server.Address().c_str(),
          options.needs_auth ? "" : ", everybody may connect");
  loop.Run();
  return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
  OpenStandardDescriptors();
  try {
    const adbd::Options options = adbd::ParseOptions(argc, argv);
    if (options.help) {
      fputs(adbd::kUsage, stdout);
      return EXIT_SUCCESS;
    }
    return Serve(options);
  } catch (const adbd::UsageError& error) {
    fprintf(stderr, "adbd: %s\n", error.what());
    return kExitUsage;
  } catch (const std::exception& error) {
    fprintf(stderr, "adbd: %s\n", error.what());
    return kExitFailed;
  }
}
