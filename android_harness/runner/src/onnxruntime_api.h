// The part of ONNX Runtime's C API that the runner uses. The wheel ships the library without its
// header; the API is a table of functions that only ever grows at its end, so a function is found
// by its position. Positions were checked by running against the version that is pinned; a library
// of another major version is refused.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pocketship::ort {

// Opaque objects of the library.
struct Status;
struct Env;
struct Session;
struct SessionOptions;
struct MemoryInfo;
struct Value;
struct TypeInfo;
struct TensorInfo;
struct Allocator;
struct RunOptions;

struct ApiBase {
  const void* (*get_api)(std::uint32_t version);
  const char* (*get_version_string)();
};

// The API version that has all functions below.
inline constexpr std::uint32_t kApiVersion = 4;
inline constexpr int kLogFatal = 4;
inline constexpr int kAllOptimizations = 99;
inline constexpr int kOnnxTypeTensor = 1;
inline constexpr int kArenaAllocator = 1;
inline constexpr int kDefaultMemory = 0;

// A position in the table with the function's type.
template <std::size_t kIndex, typename Signature>
struct Entry;
template <std::size_t kIndex, typename Return, typename... Arguments>
struct Entry<kIndex, Return(Arguments...)> {
  static Return call(const void* table, Arguments... arguments) {
    using Function = Return (*)(Arguments...);
    const auto* functions = static_cast<void* const*>(table);
    return reinterpret_cast<Function>(functions[kIndex])(arguments...);
  }
};

using GetErrorMessage = Entry<2, const char*(const Status*)>;
using CreateEnv = Entry<3, Status*(int log_level, const char* log_id, Env**)>;
using CreateSession =
    Entry<7, Status*(const Env*, const char* path, const SessionOptions*, Session**)>;
using Run =
    Entry<9, Status*(Session*, const RunOptions*, const char* const* input_names,
                     const Value* const* inputs, std::size_t input_count,
                     const char* const* output_names, std::size_t output_count, Value** outputs)>;
using CreateSessionOptions = Entry<10, Status*(SessionOptions**)>;
using EnableProfiling = Entry<14, Status*(SessionOptions*, const char* file_prefix)>;
using SetSessionGraphOptimizationLevel = Entry<23, Status*(SessionOptions*, int level)>;
using SetIntraOpNumThreads = Entry<24, Status*(SessionOptions*, int threads)>;
using SetInterOpNumThreads = Entry<25, Status*(SessionOptions*, int threads)>;
using SessionGetInputCount = Entry<30, Status*(const Session*, std::size_t*)>;
using SessionGetOutputCount = Entry<31, Status*(const Session*, std::size_t*)>;
using SessionGetInputTypeInfo = Entry<33, Status*(const Session*, std::size_t, TypeInfo**)>;
using SessionGetOutputTypeInfo = Entry<34, Status*(const Session*, std::size_t, TypeInfo**)>;
using SessionGetInputName = Entry<36, Status*(const Session*, std::size_t, Allocator*, char**)>;
using SessionGetOutputName = Entry<37, Status*(const Session*, std::size_t, Allocator*, char**)>;
using CreateTensorWithData =
    Entry<49, Status*(const MemoryInfo*, void* data, std::size_t bytes, const std::int64_t* shape,
                      std::size_t rank, int element_type, Value**)>;
using IsTensor = Entry<50, Status*(const Value*, int*)>;
using GetTensorMutableData = Entry<51, Status*(Value*, void**)>;
using CastTypeInfoToTensorInfo = Entry<55, Status*(const TypeInfo*, const TensorInfo**)>;
using GetOnnxTypeFromTypeInfo = Entry<56, Status*(const TypeInfo*, int*)>;
using GetTensorElementType = Entry<60, Status*(const TensorInfo*, int*)>;
using GetDimensionsCount = Entry<61, Status*(const TensorInfo*, std::size_t*)>;
using GetDimensions = Entry<62, Status*(const TensorInfo*, std::int64_t*, std::size_t)>;
using GetTensorTypeAndShape = Entry<65, Status*(const Value*, TensorInfo**)>;
using CreateCpuMemoryInfo = Entry<69, Status*(int allocator, int memory, MemoryInfo**)>;
using GetAllocatorWithDefaultOptions = Entry<78, Status*(Allocator**)>;
using ReleaseStatus = Entry<93, void(Status*)>;
using ReleaseValue = Entry<96, void(Value*)>;
using ReleaseTypeInfo = Entry<98, void(TypeInfo*)>;
using ReleaseTensorInfo = Entry<99, void(TensorInfo*)>;
using SessionEndProfiling = Entry<110, Status*(Session*, Allocator*, char** file)>;
using AddSessionConfigEntry =
    Entry<130, Status*(SessionOptions*, const char* key, const char* value)>;

}  // namespace pocketship::ort
