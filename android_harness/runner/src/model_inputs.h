// The content of a model's inputs.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "backend.h"

namespace pocketship {

struct FreeMemory {
  void operator()(void* memory) const { std::free(memory); }
};
using AlignedMemory = std::unique_ptr<void, FreeMemory>;

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

// A raw file with the inputs of one or more samples, one sample after another.
class InputFile {
 public:
  // Throws Failure(kInputs) unless the file's size is exactly what `samples` times `specs` need.
  InputFile(const std::string& path, const std::vector<TensorSpec>& specs, int samples);

  // Reads the next sample: one 64-byte aligned block an input, in the model's order, with 64
  // readable zero bytes behind it because vector kernels read beyond the end. The blocks are the
  // same each time. Throws Failure(kInputs).
  const std::vector<void*>& next();

 private:
  std::string path_;
  std::unique_ptr<std::FILE, CloseFile> file_;
  std::vector<std::size_t> sizes_;
  std::vector<AlignedMemory> memory_;
  std::vector<void*> data_;
};

}  // namespace pocketship
