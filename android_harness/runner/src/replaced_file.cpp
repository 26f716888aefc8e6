#include "replaced_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "failure.h"

namespace pocketship {

ReplacedFile::ReplacedFile(const std::string& path) : path_(path), temporary_(path + ".tmp") {
  struct stat info = {};
  if (lstat(path.c_str(), &info) == 0) {
    if (!S_ISREG(info.st_mode)) {
      throw Failure(kUnwritable, "something that is not a plain file is in the way", path);
    }
    if (unlink(path.c_str()) != 0) {
      fail("cannot replace");
    }
  }
  // O_NOFOLLOW: in a folder that others may write to, the name could be a link to anything.
  fd_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (fd_ < 0) {
    fail("cannot write");
  }
  remove_when_killed(temporary_);
}

ReplacedFile::~ReplacedFile() {
  if (fd_ >= 0) {
    close(fd_);
    unlink(temporary_.c_str());
  }
}

void ReplacedFile::write(const void* data, std::size_t bytes) {
  const char* position = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(fd_, position, bytes);
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written <= 0) {
      fail("cannot write");
    }
    position += written;
    bytes -= static_cast<std::size_t>(written);
  }
}

void ReplacedFile::commit() {
  if (fsync(fd_) != 0) {
    fail("cannot write");
  }
  if (rename(temporary_.c_str(), path_.c_str()) != 0) {
    fail("cannot rename");
  }
  close(fd_);
  fd_ = -1;
}

void ReplacedFile::fail(const char* what) const {
  throw Failure(kUnwritable, std::string(what) + " (" + std::strerror(errno) + ")", path_);
}

}  // namespace pocketship
