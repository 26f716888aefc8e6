#include "sync_service.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <system_error>

#include "packet.h"

namespace adbd {
namespace {

constexpr uint32_t kStat = FourCharacters("STAT");
constexpr uint32_t kStat2 = FourCharacters("STA2");
constexpr uint32_t kLstat2 = FourCharacters("LST2");
constexpr uint32_t kList = FourCharacters("LIST");
constexpr uint32_t kList2 = FourCharacters("LIS2");
constexpr uint32_t kEntry = FourCharacters("DENT");
constexpr uint32_t kEntry2 = FourCharacters("DNT2");
constexpr uint32_t kSend = FourCharacters("SEND");
constexpr uint32_t kReceive = FourCharacters("RECV");
constexpr uint32_t kData = FourCharacters("DATA");
constexpr uint32_t kDone = FourCharacters("DONE");
constexpr uint32_t kOkayAnswer = FourCharacters("OKAY");
constexpr uint32_t kFail = FourCharacters("FAIL");
constexpr uint32_t kQuit = FourCharacters("QUIT");

constexpr size_t kHeader = 8;
constexpr size_t kMaxPath = 1024;
constexpr size_t kMaxData = 64 << 10;
constexpr size_t kMaxRequest = kMaxPath + 16;  // SEND: ",MODE" follows the path
constexpr size_t kMaxBacklog = 64 << 10;
constexpr size_t kEntryBytes = 20;
constexpr size_t kStat2Bytes = 72;
constexpr size_t kEntry2Bytes = kStat2Bytes + 4;
constexpr size_t kSmallestRead = 4096;

uint32_t Saturated(uint64_t value) {
  return static_cast<uint32_t>(std::min<uint64_t>(value, UINT32_MAX));
}

// id, error, dev, ino, mode, nlink, uid, gid, size, atime, mtime, ctime; zeros where there is an
// error.
void WriteStat2(char* at, uint32_t id, int error, const struct stat& status) {
  memset(at, 0, kStat2Bytes);
  WriteU32(at, id);
  WriteU32(at + 4, static_cast<uint32_t>(error));
  if (error != 0) return;
  WriteU64(at + 8, status.st_dev);
  WriteU64(at + 16, status.st_ino);
  WriteU32(at + 24, status.st_mode);
  WriteU32(at + 28, static_cast<uint32_t>(status.st_nlink));
  WriteU32(at + 32, status.st_uid);
  WriteU32(at + 36, status.st_gid);
  WriteU64(at + 40, static_cast<uint64_t>(status.st_size));
  WriteU64(at + 48, static_cast<uint64_t>(status.st_atim.tv_sec));
  WriteU64(at + 56, static_cast<uint64_t>(status.st_mtim.tv_sec));
  WriteU64(at + 64, static_cast<uint64_t>(status.st_ctim.tv_sec));
}

// id, mode, size, mtime: 16 bytes.
void WriteStat1(char* at, uint32_t id, const struct stat& status) {
  WriteU32(at, id);
  WriteU32(at + 4, status.st_mode);
  WriteU32(at + 8, Saturated(static_cast<uint64_t>(status.st_size)));
  WriteU32(at + 12, static_cast<uint32_t>(status.st_mtim.tv_sec));
}

}  // namespace

size_t SyncService::Consume(std::string_view data) {
  const size_t offered = data.size();
  while (!data.empty() && !closing_ && !Sending() && output_.size() < kMaxBacklog) {
    switch (state_) {
      case State::kHeader:
        if (Gather(data, kHeader)) HandleHeader();
        break;
      case State::kPath:
        if (Gather(data, left_)) HandleRequest();
        break;
      case State::kData: {
        const std::string_view part = data.substr(0, left_);
        data.remove_prefix(part.size());
        left_ -= part.size();
        if (left_ == 0) state_ = State::kHeader;
        try {
          if (receiver_) receiver_->Write(part);
        } catch (const std::system_error& error) {
          receiver_.reset();
          Fail(error.what());
        }
        break;
      }
    }
  }
  return closing_ ? offered : offered - data.size();
}

bool SyncService::Gather(std::string_view& data, size_t wanted) {
  const std::string_view part = data.substr(0, wanted - gathered_.size());
  gathered_ += part;
  data.remove_prefix(part.size());
  return gathered_.size() == wanted;
}

void SyncService::HandleHeader() {
  const uint32_t id = ReadU32(gathered_.data());
  const uint32_t length = ReadU32(gathered_.data() + 4);
  gathered_.clear();
  if (receiving_) {
    HandleReceivingHeader(id, length);
    return;
  }
  request_ = id;
  switch (id) {
    case kQuit:
      closing_ = true;
      break;
    case kStat:
    case kStat2:
    case kLstat2:
    case kList:
    case kList2:
    case kSend:
    case kReceive:
      if (length > (id == kSend ? kMaxRequest : kMaxPath)) {
        FailAndClose("path too long");
        return;
      }
      left_ = length;
      state_ = State::kPath;
      if (length == 0) HandleRequest();
      break;
    default:
      FailAndClose("unknown command");
  }
}

void SyncService::HandleReceivingHeader(uint32_t id, uint32_t length) {
  if (id == kData) {
    if (length > kMaxData) {
      FailAndClose("oversize data message");
    } else if (length > 0) {
      left_ = length;
      state_ = State::kData;
    }
  } else if (id == kDone) {
    receiving_ = false;
    if (!receiver_) return;  // the failure was reported when it happened
    try {
      receiver_->Finish(length);
      char answer[kHeader];
      WriteU32(answer, kOkayAnswer);
      WriteU32(answer + 4, 0);
      output_.append(answer, sizeof answer);
    } catch (const std::system_error& error) {
      Fail(error.what());
    }
    receiver_.reset();
  } else {
    FailAndClose("expected DATA or DONE");
  }
}

void SyncService::HandleRequest() {
  state_ = State::kHeader;
  const std::string request = std::move(gathered_);
  gathered_.clear();
  if (request_ == kSend) {
    StartReceiving(request);
    return;
  }
  const std::string path = request.substr(0, request.find('\0'));
  if (request_ == kReceive) {
    StartFile(path);
  } else if (request_ == kList || request_ == kList2) {
    StartFolder(path);
  } else {
    Stat(path);
  }
}

void SyncService::Stat(const std::string& path) {
  struct stat status{};
  const int result =
      request_ == kStat2 ? stat(path.c_str(), &status) : lstat(path.c_str(), &status);
  const int error = result == 0 ? 0 : errno;
  char answer[kStat2Bytes];
  if (request_ == kStat) {
    if (error != 0) status = {};
    WriteStat1(answer, kStat, status);
    output_.append(answer, 16);
  } else {
    WriteStat2(answer, request_, error, status);
    output_.append(answer, kStat2Bytes);
  }
}

void SyncService::StartReceiving(std::string_view request) {
  receiving_ = true;
  const size_t comma = request.rfind(',');
  uint32_t mode = 0;
  if (comma == std::string_view::npos || comma > kMaxPath) {
    Fail(comma == std::string_view::npos ? "missing mode" : "path too long");
    return;
  }
  const char* const end = request.data() + request.size();
  const auto parsed = std::from_chars(request.data() + comma + 1, end, mode);
  if (parsed.ec != std::errc() || parsed.ptr != end) {
    Fail("bad mode");
    return;
  }
  const std::string_view path = request.substr(0, comma);
  try {
    receiver_ = std::make_unique<FileReceiver>(std::string(path.substr(0, path.find('\0'))), mode);
  } catch (const std::system_error& error) {
    Fail(error.what());
  }
}

void SyncService::StartFile(const std::string& path) {
  // Not blocking: a FIFO without a writer must not stop the daemon.
  file_ = UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file_) Fail(std::string("cannot open: ") + strerror(errno));
}

void SyncService::StartFolder(const std::string& path) {
  folder_.reset(opendir(path.c_str()));
  if (folder_) return;
  // The protocol has no error here: a folder that cannot be read looks empty.
  char done[kEntry2Bytes] = {};
  WriteU32(done, kDone);
  output_.append(done, request_ == kList2 ? kEntry2Bytes : kEntryBytes);
}

void SyncService::Fail(const std::string& text) {
  char header[kHeader];
  WriteU32(header, kFail);
  WriteU32(header + 4, static_cast<uint32_t>(text.size()));
  output_.append(header, sizeof header);
  output_ += text;
}

void SyncService::FailAndClose(const std::string& text) {
  receiver_.reset();
  closing_ = true;
  Fail(text);
}

size_t SyncService::Produce(char* buffer, size_t capacity) {
  size_t count = TakeOutput(buffer, capacity);
  if (output_.empty() && folder_) count += FillFolder(buffer + count, capacity - count);
  if (output_.empty() && file_) count += FillFile(buffer + count, capacity - count);
  return count + TakeOutput(buffer + count, capacity - count);  // why the file ended early
}

size_t SyncService::TakeOutput(char* buffer, size_t capacity) {
  const size_t count = std::min(output_.size(), capacity);
  memcpy(buffer, output_.data(), count);
  output_.erase(0, count);
  return count;
}

size_t SyncService::FillFile(char* buffer, size_t capacity) {
  size_t count = 0;
  while (capacity - count > kHeader) {
    const size_t wanted = std::min(capacity - count - kHeader, kMaxData);
    if (count > 0 && wanted < kSmallestRead) break;  // no tiny records at the end of a packet
    const ssize_t length = read(file_.get(), buffer + count + kHeader, wanted);
    if (length < 0 && errno == EINTR) continue;
    if (length < 0) {
      const int error = errno;
      file_.reset();
      Fail(std::string("read failed: ") + strerror(error));
      break;
    }
    WriteU32(buffer + count, length > 0 ? kData : kDone);
    WriteU32(buffer + count + 4, static_cast<uint32_t>(length));
    count += kHeader + static_cast<size_t>(length);
    if (length == 0) {
      file_.reset();
      break;
    }
  }
  return count;
}

size_t SyncService::FillFolder(char* buffer, size_t capacity) {
  const bool second = request_ == kList2;
  const size_t fixed = second ? kEntry2Bytes : kEntryBytes;
  size_t count = 0;
  while (capacity - count >= fixed + NAME_MAX) {
    char* const at = buffer + count;
    const dirent* const entry = readdir(folder_.get());
    if (entry == nullptr) {
      memset(at, 0, fixed);
      WriteU32(at, kDone);
      folder_.reset();
      return count + fixed;
    }
    struct stat status{};
    const int error =
        fstatat(dirfd(folder_.get()), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 ? 0 : errno;
    if (second) {
      WriteStat2(at, kEntry2, error, status);
    } else if (error == 0) {
      WriteStat1(at, kEntry, status);
    } else {
      continue;  // removed since; the first version cannot say so
    }
    const size_t name_bytes = strlen(entry->d_name);
    WriteU32(at + fixed - 4, static_cast<uint32_t>(name_bytes));
    memcpy(at + fixed, entry->d_name, name_bytes);
    count += fixed + name_bytes;
  }
  return count;
}

}  // namespace adbd
