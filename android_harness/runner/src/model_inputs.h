// The content of a model's inputs.
#pragma once

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

// Reads the raw content of all inputs, one after another, from `path`: one 64-byte aligned block
// each, with 64 readable zero bytes behind it because vector kernels read beyond the end. Throws
// Failure(kInputs) unless the file's size is exactly what `specs` need.
std::vector<AlignedMemory> read_inputs(const std::string& path,
                                       const std::vector<TensorSpec>& specs);

}  // namespace pocketship
