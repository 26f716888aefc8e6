// Listens, and owns the connections.
#pragma once

#include <list>
#include <memory>
#include <string>

#include "connection.h"
#include "services.h"
#include "unique_fd.h"

namespace adbd {

class Server {
 public:
  // Binds, listens and writes the port file. Throws std::system_error.
  explicit Server(const Context& context);
  ~Server();

  // Where we listen, "127.0.0.1:5555".
  std::string Address() const;

  // Lets go of all connections and what they run; the loop stops when the last child is gone.
  void Shutdown();

 private:
  void OnAcceptable();
  void Admit(UniqueFd socket, std::string peer);
  void WritePortFile(int port) const;

  const Context& context_;
  UniqueFd socket_;
  UniqueFd spare_;  // given up for a moment to turn a client away when descriptors run out
  EventLoop::Watch watch_ = 0;
  std::list<std::unique_ptr<Connection>> connections_;
};

}  // namespace adbd
