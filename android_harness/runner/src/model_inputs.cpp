#include "model_inputs.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "failure.h"

namespace pocketship {
namespace {

constexpr std::size_t kAlignment = 64;

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

std::string shape_text(const TensorSpec& spec) {
  std::string text = "[";
  for (const std::int64_t size : spec.shape) {
    text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  }
  return text + "]";
}

}  // namespace

std::vector<AlignedMemory> read_inputs(const std::string& path,
                                       const std::vector<TensorSpec>& specs) {
  std::size_t needed = 0;
  for (const TensorSpec& spec : specs) {
    if (!spec.is_static()) {
      throw Failure(kInputs,
                    "input '" + spec.name + "' has no fixed shape " + shape_text(spec) +
                        ", export the model with fixed shapes",
                    path);
    }
    needed += spec.bytes();
  }
  const std::unique_ptr<std::FILE, CloseFile> file(std::fopen(path.c_str(), "rbe"));
  struct stat info = {};
  if (!file || fstat(fileno(file.get()), &info) != 0) {
    throw Failure(kInputs, std::string("the inputs cannot be read (") + std::strerror(errno) + ")",
                  path);
  }
  if (!S_ISREG(info.st_mode) || static_cast<std::size_t>(info.st_size) != needed) {
    throw Failure(kInputs,
                  "the inputs have " + std::to_string(info.st_size) + " bytes, the model needs " +
                      std::to_string(needed),
                  path);
  }
  std::vector<AlignedMemory> data;
  for (const TensorSpec& spec : specs) {
    const std::size_t bytes = spec.bytes();
    const std::size_t padded = (bytes + kAlignment - 1) / kAlignment * kAlignment + kAlignment;
    AlignedMemory memory(std::aligned_alloc(kAlignment, padded));
    if (!memory) {
      throw Failure(kInputs, "no memory for " + std::to_string(bytes) + " bytes of inputs", path);
    }
    std::memset(static_cast<char*>(memory.get()) + bytes, 0, padded - bytes);
    if (std::fread(memory.get(), 1, bytes, file.get()) != bytes) {
      throw Failure(kInputs, "the inputs changed while they were read", path);
    }
    data.push_back(std::move(memory));
  }
  return data;
}

}  // namespace pocketship
