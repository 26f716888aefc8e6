// A client's whole session with the daemon, over a real socket.
//
// The input is a list of packets: one byte selects the command, one byte each is arg0 and arg1 (so
// that they meet the numbers of streams), two bytes are the payload's length. Headers are made
// right, because a fuzzer does not find checksums; one command means "these bytes as they are".
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "connection.h"
#include "sandbox.h"

using namespace adbd;

namespace {

constexpr uint32_t kCommands[] = {kOpen, kWrte, kWrte, kOkay, kClse, kCnxn, kAuth};
constexpr size_t kCommandCount = sizeof kCommands / sizeof *kCommands;
constexpr size_t kLongestSession = 64 << 10;  // what a socket takes at once
constexpr std::chrono::seconds kHang{5};

const Options& options(bool needs_auth) {
  static const auto make = [](bool auth) {
    Options made;
    made.needs_auth = auth;
    made.banner = "device::ro.product.name=fuzz;features=shell_v2,cmd,stat_v2,ls_v2";
    return made;
  };
  static const Options open = make(false);
  static const Options closed = make(true);
  return needs_auth ? closed : open;
}

void add_packet(std::string& wire, uint32_t command, uint32_t arg0, uint32_t arg1,
                std::string_view payload) {
  const auto header =
      EncodeHeader(command, arg0, arg1, static_cast<uint32_t>(payload.size()), Checksum(payload));
  wire.append(header.data(), header.size());
  wire.append(payload);
}

std::string session(const uint8_t* data, size_t size) {
  std::string wire;
  const uint8_t flags = size > 0 ? data[0] : 0;
  if ((flags & 1) == 0) {
    const uint32_t version = (flags & 2) != 0 ? 0x01000000 : kVersion;
    add_packet(wire, kCnxn, version, (flags & 4) != 0 ? 512 : kMaxPayload, "host::features=cmd");
  }
  size_t at = 1;
  while (at + 5 <= size && wire.size() < kLongestSession) {
    const size_t choice = data[at] % (kCommandCount + 1);
    const size_t wanted = data[at + 3] | data[at + 4] << 8;
    const uint32_t arg0 = data[at + 1];
    const uint32_t arg1 = data[at + 2];
    at += 5;
    const size_t length = std::min({wanted, size - at, kLongestSession});
    const std::string_view payload(reinterpret_cast<const char*>(data) + at, length);
    at += length;
    if (choice == kCommandCount) {
      wire.append(payload);
    } else if (kCommands[choice] == kCnxn) {
      add_packet(wire, kCnxn, 0x01000000 + (arg0 & 1), arg1 << 8, payload);
    } else {
      add_packet(wire, kCommands[choice], arg0, arg1, payload);
    }
  }
  wire.resize(std::min(wire.size(), kLongestSession));
  return wire;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  signal(SIGPIPE, SIG_IGN);
  fuzz::enter_sandbox();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  EventLoop loop;
  ChildProcesses children(loop);
  const Context context{options(size > 0 && (data[0] & 8) != 0), loop, children};
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) abort();
  const UniqueFd client(ends[1]);
  const std::string wire = session(data, size);
  (void)!write(client.get(), wire.data(), wire.size());
  shutdown(client.get(), SHUT_WR);

  bool dropped = false;
  Connection connection(context, UniqueFd(ends[0]), "fuzz", [&] {
    dropped = true;
    loop.Stop();
  });
  // A client that reads everything.
  const auto watch = loop.Add(client.get(), EPOLLIN, [&](uint32_t) {
    char buffer[65536];
    while (read(client.get(), buffer, sizeof buffer) > 0) {
    }
  });
  loop.After(std::chrono::duration_cast<std::chrono::milliseconds>(kHang), [&] {
    if (!dropped) {
      fprintf(stderr, "the connection outlives its client\n");
      abort();
    }
  });
  loop.Run();
  loop.Remove(watch);
  return 0;
}
