// The command line.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "rsa.h"

namespace adbd {

// A mistake in the command line or in a file that it names; the text is one line for the user.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Options {
  sockaddr_storage address{};
  socklen_t address_bytes = 0;
  std::string port_file;
  bool needs_auth = true;
  std::vector<RsaPublicKey> keys;
  std::string shell = "/bin/sh";
  std::string path_prefix;
  std::string reboot;  // empty: reboot: is refused
  std::string banner;
  bool help = false;
};

extern const char kUsage[];

// Throws UsageError.
Options ParseOptions(int argc, char** argv);

}  // namespace adbd
