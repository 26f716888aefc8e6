// usage: bare_executorch MODEL INPUT WARMUP ITERATIONS
// One float32 input in C order, one thread, Method::execute() in a loop.
#include <executorch/extension/data_loader/mmap_data_loader.h>
#include <executorch/extension/memory_allocator/malloc_memory_allocator.h>
#include <executorch/runtime/executor/method.h>
#include <executorch/runtime/executor/program.h>
#include <executorch/runtime/platform/runtime.h>

#include <cstdlib>
#include <optional>
#include <vector>

#include "loop.h"

namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(std::uint32_t new_thread_count);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace et = executorch::runtime;
using executorch::aten::Tensor;
using executorch::aten::TensorImpl;
using executorch::extension::MmapDataLoader;

int main(int argc, char** argv) {
  if (argc != 5) {
    give_up("usage: bare_executorch MODEL INPUT WARMUP ITERATIONS");
  }
  et::runtime_init();
  executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(1);
  auto loader = MmapDataLoader::from(argv[1], MmapDataLoader::MlockConfig::NoMlock);
  if (!loader.ok()) {
    give_up("the model cannot be read");
  }
  auto program = et::Program::load(&*loader);
  if (!program.ok()) {
    give_up("the model cannot be loaded");
  }
  auto meta = program->method_meta("forward");
  if (!meta.ok() || meta->num_inputs() != 1) {
    give_up("the model has no method 'forward' with one input");
  }
  std::vector<std::vector<std::uint8_t>> buffers;
  std::vector<et::Span<std::uint8_t>> spans;
  for (std::size_t i = 0; i < meta->num_memory_planned_buffers(); ++i) {
    buffers.emplace_back(static_cast<std::size_t>(meta->memory_planned_buffer_size(i).get()));
  }
  for (auto& buffer : buffers) {
    spans.push_back({buffer.data(), buffer.size()});
  }
  executorch::extension::MallocMemoryAllocator method_memory;
  executorch::extension::MallocMemoryAllocator temporary_memory;
  et::HierarchicalAllocator planned({spans.data(), spans.size()});
  et::MemoryManager manager(&method_memory, &planned, &temporary_memory);
  auto method = program->load_method("forward", &manager);
  if (!method.ok()) {
    give_up("the method cannot be loaded");
  }
  const auto info = meta->input_tensor_meta(0).get();
  std::vector<TensorImpl::SizesType> sizes(info.sizes().begin(), info.sizes().end());
  std::vector<TensorImpl::DimOrderType> order(info.dim_order().begin(), info.dim_order().end());
  std::vector<TensorImpl::StridesType> strides(sizes.size(), 1);
  for (std::size_t i = sizes.size(); i-- > 1;) {
    strides[i - 1] = strides[i] * sizes[i];
  }
  char* data = read_aligned(argv[2], info.nbytes());
  TensorImpl input(info.scalar_type(), static_cast<ssize_t>(sizes.size()), sizes.data(), data,
                   order.data(), strides.data());
  // Inputs may lie in planned memory that an inference overwrites.
  const auto give_input = [&] {
    if (method->set_input(et::EValue(Tensor(&input)), 0) != et::Error::Ok) {
      give_up("the input is refused");
    }
  };
  run_loop(std::atoi(argv[3]), std::atoi(argv[4]), give_input,
           [&] { return method->execute() == et::Error::Ok; });
  return 0;
}
