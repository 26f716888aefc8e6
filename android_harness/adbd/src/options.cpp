#include "options.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <string_view>

#include "auth.h"

namespace adbd {
namespace {

// `cmd` promises nothing of the daemon but a program of that name in the userland. The other names
// change what the client sends, so only what is implemented may be advertised.
constexpr std::array<std::string_view, 6> kFeatures = {
    "shell_v2", "cmd", "stat_v2", "ls_v2", "fixed_push_mkdir", "fixed_push_symlink_timestamp"};
constexpr size_t kMaxBannerBytes = 2048;

constexpr char kDefaultBanner[] =
    "device::ro.product.name=pocketship;ro.product.model=pocketship;ro.product.device=pocketship;"
    "features=shell_v2,stat_v2,ls_v2,fixed_push_mkdir,fixed_push_symlink_timestamp";

// Calls `visit` with each part of `text` between separators.
template <typename Visit>
void Split(std::string_view text, char separator, Visit visit) {
  while (true) {
    const size_t end = std::min(text.find(separator), text.size());
    visit(text.substr(0, end));
    if (end == text.size()) return;
    text.remove_prefix(end + 1);
  }
}

void CheckBanner(std::string_view banner) {
  constexpr std::string_view kStart = "device::";
  const std::string shown(banner.substr(0, 80));
  if (banner.substr(0, kStart.size()) != kStart || banner.size() > kMaxBannerBytes) {
    throw UsageError("--banner '" + shown + "': must begin with device:: and be at most " +
                     std::to_string(kMaxBannerBytes) + " bytes");
  }
  Split(banner.substr(kStart.size()), ';', [&](std::string_view property) {
    const size_t equals = property.find('=');
    if (property.empty()) return;
    if (equals == std::string_view::npos || equals == 0) {
      throw UsageError("--banner: '" + std::string(property) + "' is not name=value");
    }
    if (property.substr(0, equals) != "features") return;
    Split(property.substr(equals + 1), ',', [](std::string_view feature) {
      if (std::find(kFeatures.begin(), kFeatures.end(), feature) == kFeatures.end()) {
        throw UsageError("--banner: feature '" + std::string(feature) + "' is not implemented");
      }
    });
  });
}

// ADDR:PORT or [ADDR]:PORT; numbers only, because names need libraries that a static program lacks.
void ParseListen(const std::string& text, Options& options) {
  const UsageError error("--listen '" + text +
                         "': expected an address and a port, as 127.0.0.1:5555 or [::1]:5555");
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) throw error;
  uint16_t port = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data() + colon + 1, end, port);
  if (parsed.ec != std::errc() || parsed.ptr != end) throw error;

  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(port);
    if (inet_pton(AF_INET6, host.c_str(), &address.sin6_addr) != 1) throw error;
    memcpy(&options.address, &address, sizeof address);
    options.address_bytes = sizeof address;
  } else {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    if (inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1) throw error;
    memcpy(&options.address, &address, sizeof address);
    options.address_bytes = sizeof address;
  }
}

bool IsLoopback(const sockaddr_storage& storage) {
  if (storage.ss_family == AF_INET) {
    sockaddr_in address;
    memcpy(&address, &storage, sizeof address);
    return ntohl(address.sin_addr.s_addr) >> 24 == 127;
  }
  sockaddr_in6 address;
  memcpy(&address, &storage, sizeof address);
  return IN6_IS_ADDR_LOOPBACK(&address.sin6_addr);
}

void CheckExecutable(const char* option, const std::string& path) {
  if (path.empty() || path.front() != '/' || access(path.c_str(), X_OK) != 0) {
    throw UsageError(std::string(option) + " '" + path +
                     "': not the absolute path of a program that can be run");
  }
}

}  // namespace

const char kUsage[] =
    "usage: adbd --listen ADDR:PORT (--authorized-keys FILE | --no-auth) [options]\n"
    "\n"
    "  --listen ADDR:PORT      where to listen; port 0 lets the kernel choose\n"
    "  --authorized-keys FILE  who may connect: lines as in ~/.android/adbkey.pub\n"
    "  --no-auth               everybody may connect; only on a loopback address\n"
    "  --port-file FILE        write the port to FILE once connections are accepted\n"
    "  --shell PATH            shell that runs commands (default /bin/sh)\n"
    "  --path-prefix DIR       put DIR in front of PATH for commands\n"
    "  --reboot PATH           program that reboots; without it reboot: is refused\n"
    "  --banner TEXT           what to say of this device: device::name=value;...;features=a,b\n"
    "  --help\n"
    "\n"
    "Runs in the foreground until SIGTERM or SIGINT. Exit codes: 0 ended by a signal, 1 cannot\n"
    "listen or run, 2 wrong usage or unusable keys.\n";

Options ParseOptions(int argc, char** argv) {
  enum { kListen = 1, kKeys, kNoAuth, kPortFile, kShell, kPathPrefix, kReboot, kBanner, kHelp };
  static const option kLong[] = {{"listen", required_argument, nullptr, kListen},
                                 {"authorized-keys", required_argument, nullptr, kKeys},
                                 {"no-auth", no_argument, nullptr, kNoAuth},
                                 {"port-file", required_argument, nullptr, kPortFile},
                                 {"shell", required_argument, nullptr, kShell},
                                 {"path-prefix", required_argument, nullptr, kPathPrefix},
                                 {"reboot", required_argument, nullptr, kReboot},
                                 {"banner", required_argument, nullptr, kBanner},
                                 {"help", no_argument, nullptr, kHelp},
                                 {nullptr, 0, nullptr, 0}};
  Options options;
  options.banner = kDefaultBanner;
  std::string keys_file;
  bool no_auth = false;
  opterr = 0;
  for (int choice; (choice = getopt_long(argc, argv, ":", kLong, nullptr)) != -1;) {
    const std::string value = optarg != nullptr ? optarg : "";
    switch (choice) {
      case kListen:
        ParseListen(value, options);
        break;
      case kKeys:
        keys_file = value;
        break;
      case kNoAuth:
        no_auth = true;
        break;
      case kPortFile:
        options.port_file = value;
        break;
      case kShell:
        options.shell = value;
        break;
      case kPathPrefix:
        options.path_prefix = value;
        break;
      case kReboot:
        CheckExecutable("--reboot", value);
        options.reboot = value;
        break;
      case kBanner:
        CheckBanner(value);
        options.banner = value;
        break;
      case kHelp:
        options.help = true;
        return options;
      case ':':
        throw UsageError(std::string(argv[optind - 1]) + ": needs a value");
      default:
        throw UsageError(std::string(argv[optind - 1]) + ": unknown option (try --help)");
    }
  }
  if (optind < argc) throw UsageError(std::string(argv[optind]) + ": unexpected (try --help)");
  if (options.address_bytes == 0) throw UsageError("--listen is needed (try --help)");
  if (no_auth != keys_file.empty()) {
    throw UsageError("exactly one of --authorized-keys FILE and --no-auth is needed");
  }
  if (no_auth && !IsLoopback(options.address)) {
    throw UsageError("--no-auth: refused on an address that others can reach; use 127.0.0.1");
  }
  CheckExecutable("--shell", options.shell);
  options.needs_auth = !no_auth;
  if (options.needs_auth) options.keys = ReadAuthorizedKeys(keys_file);
  return options;
}

}  // namespace adbd
