// What a stream talks to, and the table of service names.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string_view>

#include "child_processes.h"
#include "event_loop.h"
#include "options.h"

namespace adbd {

// The device's end of one stream. It is pulled: the connection offers input and asks for output
// when the peer can take some, so nothing piles up here. Destroying a service ends what it started.
class Service {
 public:
  virtual ~Service() = default;

  // Takes bytes from the peer and returns how many. What is left is offered again after the service
  // has produced something or called `wake`.
  virtual size_t Consume(std::string_view data) = 0;

  // Writes at most `capacity` (at least 128) bytes for the peer and returns how many; 0 means: not
  // now, I shall call `wake`.
  virtual size_t Produce(char* buffer, size_t capacity) = 0;

  // The peer has closed the stream. True where the service goes on without it: it gets the input
  // that is left, then EndInput, and is destroyed once it has finished or the connection is lost.
  virtual bool OutlivesPeer() { return false; }
  virtual void EndInput() {}

  // True once nothing more will ever be produced.
  virtual bool Finished() const = 0;
};

// Asks the connection to offer input and take output again. Never called within Consume or Produce.
using Wake = std::function<void()>;

// What all connections share.
struct Context {
  const Options& options;
  EventLoop& loop;
  ChildProcesses& children;
};

// Starts the service that `destination` names ("shell:ls", "sync:"), null where there is none of
// that name. Throws std::system_error where it cannot be started.
std::unique_ptr<Service> OpenService(const Context& context, std::string_view destination,
                                     Wake wake);

}  // namespace adbd
