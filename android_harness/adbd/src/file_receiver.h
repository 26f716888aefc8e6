// A file or link that is being pushed: whole under its name, or not there at all.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "unique_fd.h"

namespace adbd {

class FileReceiver {
 public:
  // Opens a temporary file beside `path`, with the folders above it, or `path` itself where that is
  // a character device. `mode` is a st_mode: a link's content is what it points at, everything else
  // becomes a regular file with the low nine bits. Throws std::system_error.
  FileReceiver(std::string path, mode_t mode);
  // Removes what was not finished.
  ~FileReceiver();
  FileReceiver(const FileReceiver&) = delete;
  FileReceiver& operator=(const FileReceiver&) = delete;

  // Throws std::system_error.
  void Write(std::string_view data);

  // Sets mode and modification time (seconds since 1970) and gives the file its name.
  void Finish(uint32_t modified);

 private:
  void OpenTemporary();

  const std::string path_;
  const mode_t mode_;
  const bool is_link_;
  std::string link_target_;
  std::string temporary_;  // empty: nothing to remove or rename
  UniqueFd fd_;
};

}  // namespace adbd
