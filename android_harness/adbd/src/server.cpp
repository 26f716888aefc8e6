#include "server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>

namespace adbd {
namespace {

constexpr size_t kMaxConnections = 32;
constexpr int kBacklog = 32;

[[noreturn]] void Throw(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

void SetOption(int fd, int level, int name, int value) {
  setsockopt(fd, level, name, &value, sizeof value);
}

int Port(const sockaddr_storage& storage) {
  if (storage.ss_family == AF_INET) {
    sockaddr_in address;
    memcpy(&address, &storage, sizeof address);
    return ntohs(address.sin_port);
  }
  sockaddr_in6 address;
  memcpy(&address, &storage, sizeof address);
  return ntohs(address.sin6_port);
}

std::string ToText(const sockaddr_storage& storage) {
  char host[INET6_ADDRSTRLEN] = "?";
  const std::string port = std::to_string(Port(storage));
  if (storage.ss_family == AF_INET) {
    sockaddr_in address;
    memcpy(&address, &storage, sizeof address);
    inet_ntop(AF_INET, &address.sin_addr, host, sizeof host);
    return std::string(host) + ":" + port;
  }
  sockaddr_in6 address;
  memcpy(&address, &storage, sizeof address);
  inet_ntop(AF_INET6, &address.sin6_addr, host, sizeof host);
  return "[" + std::string(host) + "]:" + port;
}

UniqueFd OpenSpare() { return UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC)); }

}  // namespace

Server::Server(const Context& context)
    : context_(context),
      socket_(
          socket(context.options.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)),
      spare_(OpenSpare()) {
  if (!socket_) Throw("cannot open a socket");
  SetOption(socket_.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  const auto* const address = reinterpret_cast<const sockaddr*>(&context.options.address);
  if (bind(socket_.get(), address, context.options.address_bytes) != 0 ||
      listen(socket_.get(), kBacklog) != 0) {
    Throw("cannot listen on " + ToText(context.options.address));
  }
  watch_ = context_.loop.Add(socket_.get(), EPOLLIN, [this](uint32_t) { OnAcceptable(); });
  if (!context.options.port_file.empty()) {
    sockaddr_storage bound{};
    socklen_t bytes = sizeof bound;
    if (getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&bound), &bytes) != 0) {
      Throw("getsockname");
    }
    WritePortFile(Port(bound));
  }
}

Server::~Server() { context_.loop.Remove(watch_); }

std::string Server::Address() const {
  sockaddr_storage bound{};
  socklen_t bytes = sizeof bound;
  if (getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&bound), &bytes) != 0) {
    Throw("getsockname");
  }
  return ToText(bound);
}

void Server::WritePortFile(int port) const {
  const std::string& path = context_.options.port_file;
  const std::string temporary = path + "." + std::to_string(getpid()) + ".tmp";
  const std::string text = std::to_string(port) + "\n";
  const UniqueFd file(open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  const bool written =
      file && write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (!written || rename(temporary.c_str(), path.c_str()) != 0) {
    const int reason = errno;
    if (file) unlink(temporary.c_str());
    throw std::system_error(reason, std::generic_category(), "cannot write " + path);
  }
}

void Server::OnAcceptable() {
  sockaddr_storage peer{};
  socklen_t bytes = sizeof peer;
  UniqueFd socket(accept4(socket_.get(), reinterpret_cast<sockaddr*>(&peer), &bytes,
                          SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket) {
    if (errno == EMFILE || errno == ENFILE) {
      // Leaving the client in the queue would wake us for ever.
      spare_.reset();
      socket = UniqueFd(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      socket.reset();
      spare_ = OpenSpare();
      fprintf(stderr, "adbd: turned a client away: no descriptors left\n");
    }
    return;
  }
  Admit(std::move(socket), ToText(peer));
}

void Server::Admit(UniqueFd socket, std::string peer) {
  if (connections_.size() >= kMaxConnections) {
    // Those who never proved who they are give way first, the oldest before others.
    const auto stranger =
        std::find_if(connections_.begin(), connections_.end(),
                     [](const auto& connection) { return !connection->Authorized(); });
    if (stranger == connections_.end()) {
      fprintf(stderr, "adbd: %s: turned away: too many clients\n", peer.c_str());
      return;
    }
    (*stranger)->Drop("dropped: made room for another client");
  }
  SetOption(socket.get(), IPPROTO_TCP, TCP_NODELAY, 1);
  SetOption(socket.get(), SOL_SOCKET, SO_KEEPALIVE, 1);
  SetOption(socket.get(), IPPROTO_TCP, TCP_KEEPIDLE, 60);
  const auto slot = connections_.emplace(connections_.end());
  try {
    *slot =
        std::make_unique<Connection>(context_, std::move(socket), std::move(peer), [this, slot] {
          // Off the list at once, so that the limits hold; destroyed when no handler of it runs.
          const std::shared_ptr<Connection> dropped = std::move(*slot);
          connections_.erase(slot);
          context_.loop.Defer([dropped] {});
        });
  } catch (const std::system_error& error) {
    connections_.erase(slot);
    fprintf(stderr, "adbd: cannot serve a client: %s\n", error.what());
  }
}

void Server::Shutdown() {
  context_.loop.Remove(watch_);
  socket_.reset();
  while (!connections_.empty()) connections_.front()->Drop("");
  // Deferred behind the services that the connections have just let go of.
  context_.loop.Defer([this] { context_.children.WhenEmpty([this] { context_.loop.Stop(); }); });
}

}  // namespace adbd
