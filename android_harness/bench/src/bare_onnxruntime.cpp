// usage: bare_onnxruntime LIBRARY MODEL INPUT WARMUP ITERATIONS
// One static float32 input, one output, one thread, OrtApi::Run() in a loop.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "loop.h"
#include "onnxruntime_api.h"

namespace ort = pocketship::ort;

namespace {

void must(ort::Status* status) {
  if (status != nullptr) {
    give_up("ONNX Runtime refuses");
  }
}

constexpr int kFloat = 1;

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    give_up("usage: bare_onnxruntime LIBRARY MODEL INPUT WARMUP ITERATIONS");
  }
  setenv("ORT_DISABLE_TELEMETRY", "1", 1);
  void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  auto* base = library == nullptr
                   ? nullptr
                   : reinterpret_cast<const ort::ApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
  if (base == nullptr) {
    give_up("the library cannot be opened");
  }
  const void* api = base()->get_api(ort::kApiVersion);
  ort::Env* environment = nullptr;
  ort::SessionOptions* options = nullptr;
  ort::Session* session = nullptr;
  ort::MemoryInfo* memory = nullptr;
  ort::Allocator* allocator = nullptr;
  must(ort::CreateEnv::call(api, ort::kLogFatal, "bare", &environment));
  must(ort::CreateSessionOptions::call(api, &options));
  must(ort::SetSessionGraphOptimizationLevel::call(api, options, ort::kAllOptimizations));
  must(ort::SetIntraOpNumThreads::call(api, options, 1));
  must(ort::SetInterOpNumThreads::call(api, options, 1));
  must(ort::CreateSession::call(api, environment, argv[2], options, &session));
  must(ort::CreateCpuMemoryInfo::call(api, ort::kArenaAllocator, ort::kDefaultMemory, &memory));
  must(ort::GetAllocatorWithDefaultOptions::call(api, &allocator));

  ort::TypeInfo* type = nullptr;
  const ort::TensorInfo* tensor = nullptr;
  std::size_t rank = 0;
  char* input_name = nullptr;
  char* output_name = nullptr;
  must(ort::SessionGetInputName::call(api, session, 0, allocator, &input_name));
  must(ort::SessionGetOutputName::call(api, session, 0, allocator, &output_name));
  must(ort::SessionGetInputTypeInfo::call(api, session, 0, &type));
  must(ort::CastTypeInfoToTensorInfo::call(api, type, &tensor));
  must(ort::GetDimensionsCount::call(api, tensor, &rank));
  std::vector<std::int64_t> shape(rank);
  must(ort::GetDimensions::call(api, tensor, shape.data(), rank));
  std::size_t bytes = sizeof(float);
  for (const std::int64_t size : shape) {
    if (size <= 0) {
      give_up("the input's shape is not fixed");
    }
    bytes *= static_cast<std::size_t>(size);
  }
  ort::Value* input = nullptr;
  must(ort::CreateTensorWithData::call(api, memory, read_aligned(argv[3], bytes), bytes,
                                       shape.data(), rank, kFloat, &input));
  const char* const input_names[] = {input_name};
  const char* const output_names[] = {output_name};
  const ort::Value* const inputs[] = {input};
  ort::Value* output = nullptr;
  const auto free_output = [&] {
    if (output != nullptr) {
      ort::ReleaseValue::call(api, output);
      output = nullptr;
    }
  };
  run_loop(std::atoi(argv[4]), std::atoi(argv[5]), free_output, [&] {
    return ort::Run::call(api, session, nullptr, input_names, inputs, 1, output_names, 1,
                          &output) == nullptr;
  });
  std::fflush(stdout);
  // Telemetry off or not, the library's globals are not torn down: as in the runner.
  _Exit(0);
}
