#include "model_inputs.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "failure.h"

namespace pocketship {
namespace {

constexpr std::size_t kAlignment = 64;
// More than any phone has. Sizes come from the model: rounding one up or adding two must not wrap.
constexpr std::size_t kMaxBytes = std::size_t{1} << 40;

// `bytes()` is 0 for a product that does not fit, too.
bool is_possible(const TensorSpec& spec) {
  const bool empty = std::find(spec.shape.begin(), spec.shape.end(), 0) != spec.shape.end();
  return spec.bytes() <= kMaxBytes && (spec.bytes() > 0 || empty);
}

std::string shape_text(const TensorSpec& spec) {
  std::string text = "[";
  for (const std::int64_t size : spec.shape) {
    text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  }
  return text + "]";
}

}  // namespace

InputFile::InputFile(const std::string& path, const std::vector<TensorSpec>& specs, int samples)
    : path_(path) {
  std::size_t needed = 0;
  for (const TensorSpec& spec : specs) {
    if (!spec.is_static()) {
      throw Failure(kInputs,
                    "input '" + spec.name + "' has no fixed shape " + shape_text(spec) +
                        ", export the model with fixed shapes",
                    path);
    }
    if (!is_possible(spec) || needed > kMaxBytes) {
      throw Failure(kInputs, "input '" + spec.name + "' has an impossible size " + shape_text(spec),
                    path);
    }
    needed += spec.bytes();
  }
  if (__builtin_mul_overflow(needed, static_cast<std::size_t>(samples), &needed)) {
    throw Failure(kInputs, "no file holds as many samples", path);
  }
  file_.reset(std::fopen(path.c_str(), "rbe"));
  struct stat info = {};
  if (!file_ || fstat(fileno(file_.get()), &info) != 0) {
    throw Failure(kInputs, std::string("the inputs cannot be read (") + std::strerror(errno) + ")",
                  path);
  }
  if (!S_ISREG(info.st_mode) || static_cast<std::size_t>(info.st_size) != needed) {
    throw Failure(kInputs,
                  "the inputs have " + std::to_string(info.st_size) + " bytes, the model needs " +
                      std::to_string(needed) +
                      (samples > 1 ? " for " + std::to_string(samples) + " samples" : ""),
                  path);
  }
  for (const TensorSpec& spec : specs) {
    const std::size_t bytes = spec.bytes();
    const std::size_t padded = (bytes + kAlignment - 1) / kAlignment * kAlignment + kAlignment;
    AlignedMemory memory(std::aligned_alloc(kAlignment, padded));
    if (!memory) {
      throw Failure(kInputs, "no memory for " + std::to_string(bytes) + " bytes of inputs", path);
    }
    std::memset(static_cast<char*>(memory.get()) + bytes, 0, padded - bytes);
    sizes_.push_back(bytes);
    data_.push_back(memory.get());
    memory_.push_back(std::move(memory));
  }
}

const std::vector<void*>& InputFile::next() {
  for (std::size_t i = 0; i < data_.size(); ++i) {
    if (std::fread(data_[i], 1, sizes_[i], file_.get()) != sizes_[i]) {
      throw Failure(kInputs, "the inputs changed while they were read", path_);
    }
  }
  return data_;
}

}  // namespace pocketship
