// A file that is seen whole or not at all.
#pragma once

#include <cstddef>
#include <string>

namespace pocketship {

// Writes to `<path>.tmp` and renames it to `path` by `commit`. A file that was at `path` before is
// removed at once: a failed run must not leave an older result behind. The temporary file goes
// away with the object and on signals that can be caught. Failures throw Failure(kUnwritable).
class ReplacedFile {
 public:
  explicit ReplacedFile(const std::string& path);
  ~ReplacedFile();
  ReplacedFile(const ReplacedFile&) = delete;
  ReplacedFile& operator=(const ReplacedFile&) = delete;

  void write(const void* data, std::size_t bytes);
  void commit();

 private:
  [[noreturn]] void fail(const char* what) const;

  std::string path_;
  std::string temporary_;
  int fd_ = -1;
};

}  // namespace pocketship
