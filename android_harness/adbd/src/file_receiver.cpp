#include "file_receiver.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>

namespace adbd {
namespace {

constexpr mode_t kFolderMode = 0775;
constexpr mode_t kPermissions = 0777;

[[noreturn]] void Throw(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

// "" for a name without folders.
std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

void MakeFolders(const std::string& folder) {
  struct stat status;
  if (folder.empty() || stat(folder.c_str(), &status) == 0) return;  // open() judges what it is
  for (size_t at = folder.find('/', 1); at != std::string::npos; at = folder.find('/', at + 1)) {
    const std::string part = folder.substr(0, at);
    if (mkdir(part.c_str(), kFolderMode) != 0 && errno != EEXIST) Throw("cannot make folder");
  }
}

std::string TemporaryName(const std::string& folder) {
  uint64_t number = 0;
  if (getrandom(&number, sizeof number, 0) != static_cast<ssize_t>(sizeof number)) {
    Throw("getrandom");
  }
  char name[40];
  snprintf(name, sizeof name, ".adbd-%016llx.tmp", static_cast<unsigned long long>(number));
  return folder + name;
}

}  // namespace

FileReceiver::FileReceiver(std::string path, mode_t mode)
    : path_(std::move(path)), mode_(mode & kPermissions), is_link_(S_ISLNK(mode)) {
  if (path_.empty() || path_.back() == '/') {
    throw std::system_error(EISDIR, std::generic_category(), "cannot create file");
  }
  struct stat status;
  const bool exists = lstat(path_.c_str(), &status) == 0;
  if (exists && S_ISCHR(status.st_mode)) {
    fd_ = UniqueFd(open(path_.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
    if (!fd_) Throw("cannot open device");
    return;
  }
  if (exists && !S_ISREG(status.st_mode) && !S_ISLNK(status.st_mode)) {
    const int reason = S_ISDIR(status.st_mode) ? EISDIR : EEXIST;
    throw std::system_error(reason, std::generic_category(), "cannot replace what is there");
  }
  MakeFolders(FolderOf(path_));
  if (!is_link_) OpenTemporary();
}

FileReceiver::~FileReceiver() {
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

void FileReceiver::OpenTemporary() {
  const std::string name = TemporaryName(FolderOf(path_));
  fd_ = UniqueFd(open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd_) Throw("cannot create file");
  temporary_ = name;
}

void FileReceiver::Write(std::string_view data) {
  if (is_link_) {
    if (link_target_.size() + data.size() > PATH_MAX) {
      throw std::system_error(ENAMETOOLONG, std::generic_category(), "cannot create link");
    }
    link_target_ += data;
    return;
  }
  while (!data.empty()) {
    const ssize_t count = write(fd_.get(), data.data(), data.size());
    if (count < 0 && errno != EINTR) Throw("write failed");
    if (count > 0) data.remove_prefix(static_cast<size_t>(count));
  }
}

void FileReceiver::Finish(uint32_t modified) {
  const timespec time{static_cast<time_t>(modified), 0};
  const timespec times[] = {time, time};
  if (is_link_) {
    // The client sends the terminating zero as well.
    link_target_.resize(std::min(link_target_.find('\0'), link_target_.size()));
    const std::string name = TemporaryName(FolderOf(path_));
    if (symlink(link_target_.c_str(), name.c_str()) != 0) Throw("cannot create link");
    temporary_ = name;
    utimensat(AT_FDCWD, name.c_str(), times, AT_SYMLINK_NOFOLLOW);
  } else if (temporary_.empty()) {
    return;  // a device
  } else {
    if (fchmod(fd_.get(), mode_) != 0) Throw("cannot set mode");
    if (futimens(fd_.get(), times) != 0) Throw("cannot set time");
    fd_.reset();
  }
  if (rename(temporary_.c_str(), path_.c_str()) != 0) Throw("cannot rename");
  temporary_.clear();
}

}  // namespace adbd
