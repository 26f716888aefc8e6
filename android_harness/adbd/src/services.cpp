#include "services.h"

#include "shell_service.h"
#include "sync_service.h"

namespace adbd {
namespace {

bool TakePrefix(std::string_view& text, std::string_view prefix) {
  if (text.substr(0, prefix.size()) != prefix) return false;
  text.remove_prefix(prefix.size());
  return true;
}

ShellRequest ParseShell(std::string_view arguments, std::string_view command) {
  ShellRequest request;
  request.command = command;
  request.pty = command.empty();
  while (!arguments.empty()) {
    TakePrefix(arguments, ",");
    std::string_view word = arguments.substr(0, arguments.find(','));
    arguments.remove_prefix(word.size());
    if (word == "v2") {
      request.framed = true;
    } else if (word == "pty") {
      request.pty = true;
    } else if (word == "raw") {
      request.pty = false;
    } else if (TakePrefix(word, "TERM=")) {
      request.terminal = word;
    }
  }
  return request;
}

}  // namespace

std::unique_ptr<Service> OpenService(const Context& context, std::string_view destination,
                                     Wake wake) {
  std::string_view rest = destination;
  if (TakePrefix(rest, "shell")) {
    const size_t colon = rest.find(':');
    if (colon == std::string_view::npos || (colon > 0 && rest.front() != ',')) return nullptr;
    return std::make_unique<ShellService>(
        context, ParseShell(rest.substr(0, colon), rest.substr(colon + 1)), std::move(wake));
  }
  if (TakePrefix(rest, "exec:")) {
    ShellRequest request;
    request.command = rest;
    request.outlives_peer = true;
    return std::make_unique<ShellService>(context, request, std::move(wake));
  }
  if (destination == "sync:") return std::make_unique<SyncService>();
  // "reboot:bootloader" and the like have no meaning here, so they are refused as unknown.
  if (destination == "reboot:" && !context.options.reboot.empty()) {
    ShellRequest request;
    request.program = context.options.reboot;
    return std::make_unique<ShellService>(context, request, std::move(wake));
  }
  return nullptr;
}

}  // namespace adbd
