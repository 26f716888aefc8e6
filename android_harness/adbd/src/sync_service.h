// "sync:": files and folders, as AOSP's SYNC.TXT and file_sync_protocol.h lay them out.
#pragma once

#include <dirent.h>

#include <memory>
#include <string>

#include "file_receiver.h"
#include "services.h"

namespace adbd {

class SyncService : public Service {
 public:
  size_t Consume(std::string_view data) override;
  size_t Produce(char* buffer, size_t capacity) override;
  bool Finished() const override { return closing_ && output_.empty() && !Sending(); }

 private:
  enum class State { kHeader, kPath, kData };
  struct CloseFolder {
    void operator()(DIR* folder) const { closedir(folder); }
  };

  // A file or a listing is under way towards the peer: requests wait behind it.
  bool Sending() const { return file_ || folder_; }
  bool Gather(std::string_view& data, size_t wanted);
  void HandleHeader();
  void HandleRequest();
  void HandleReceivingHeader(uint32_t id, uint32_t length);
  void StartReceiving(std::string_view request);
  void StartFile(const std::string& path);
  void StartFolder(const std::string& path);
  void Stat(const std::string& path);
  void Fail(const std::string& text);
  // Answers what the client cannot go on after, then closes the stream.
  void FailAndClose(const std::string& text);
  size_t TakeOutput(char* buffer, size_t capacity);
  size_t FillFile(char* buffer, size_t capacity);
  size_t FillFolder(char* buffer, size_t capacity);

  State state_ = State::kHeader;
  std::string gathered_;
  uint32_t request_ = 0;
  size_t left_ = 0;  // of the path or of the data record that is coming in
  bool receiving_ = false;
  bool closing_ = false;
  std::unique_ptr<FileReceiver> receiver_;  // null while receiving: failed, the rest is dropped
  std::string output_;
  UniqueFd file_;
  std::unique_ptr<DIR, CloseFolder> folder_;
};

}  // namespace adbd
