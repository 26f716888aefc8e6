// ONNX Runtime on its CPU provider, by its C API; loads .onnx and .ort, told apart by content.
#include <dirent.h>
#include <dlfcn.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "backend.h"
#include "failure.h"
#include "onnxruntime_api.h"

namespace pocketship {
namespace {

constexpr const char* kLibraryPrefix = "libonnxruntime.so.";
constexpr const char* kSupportedMajor = "1.";

struct DataType {
  int code;  // of ONNX's TensorProto
  const char* name;
  std::size_t bytes;
};

constexpr DataType kDataTypes[] = {
    {1, "float32", 4},   {2, "uint8", 1},    {3, "int8", 1},    {4, "uint16", 2},
    {5, "int16", 2},     {6, "int32", 4},    {7, "int64", 8},   {9, "bool", 1},
    {10, "float16", 2},  {11, "float64", 8}, {12, "uint32", 4}, {13, "uint64", 8},
    {16, "bfloat16", 2},
};

// The one libonnxruntime.so.* beside the program. Throws Failure(kRuntime).
std::string find_library(const std::string& folder) {
  std::string found;
  if (DIR* entries = opendir(folder.c_str())) {
    while (const dirent* entry = readdir(entries)) {
      const std::string name = entry->d_name;
      if (name.compare(0, std::strlen(kLibraryPrefix), kLibraryPrefix) == 0 && name > found) {
        found = name;
      }
    }
    closedir(entries);
  }
  if (found.empty()) {
    throw Failure(kRuntime, "a runtime library is missing", folder + "/" + kLibraryPrefix + "*");
  }
  return folder + "/" + found;
}

// A model in ORT's own format is a flatbuffer with the identifier ORTM. Its extension says so too,
// but files on a device are named by their hash.
bool is_ort_format(const std::string& path) {
  char head[8] = {};
  if (std::FILE* file = std::fopen(path.c_str(), "rbe")) {
    const std::size_t got = std::fread(head, 1, sizeof(head), file);
    std::fclose(file);
    return got == sizeof(head) && std::memcmp(head + 4, "ORTM", 4) == 0;
  }
  return false;
}

// A file's content; empty where it cannot be read or is longer than any profile that is taken.
std::string read_and_remove(const std::string& path) {
  constexpr std::int64_t kMaxBytes = 64 << 20;
  std::string text;
  struct stat info = {};
  if (std::FILE* file = std::fopen(path.c_str(), "rbe")) {
    if (fstat(fileno(file), &info) == 0 && info.st_size <= kMaxBytes) {
      text.resize(static_cast<std::size_t>(info.st_size));
      text.resize(std::fread(text.data(), 1, text.size(), file));
    }
    std::fclose(file);
  }
  unlink(path.c_str());
  return text;
}

class OnnxRuntimeBackend final : public Backend {
 public:
  OnnxRuntimeBackend(int threads, const std::string& folder) : library_(find_library(folder)) {
    // Since 1.29 the Linux library uploads usage data and keeps a thread for it, which neither a
    // user's phone nor a measurement wants. Only this, set before the library is there, stops all.
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    void* library = dlopen(library_.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      const char* reason = dlerror();
      throw Failure(kRuntime, "a runtime library cannot be opened",
                    reason == nullptr ? library_ : reason);
    }
    using GetApiBase = const ort::ApiBase*();
    auto* get_base = reinterpret_cast<GetApiBase*>(dlsym(library, "OrtGetApiBase"));
    const ort::ApiBase* base = get_base == nullptr ? nullptr : get_base();
    version_ = base == nullptr ? "" : base->get_version_string();
    api_ = base == nullptr ? nullptr : base->get_api(ort::kApiVersion);
    if (api_ == nullptr ||
        version_.compare(0, std::strlen(kSupportedMajor), kSupportedMajor) != 0) {
      throw Failure(kRuntime, "a runtime library has the wrong version '" + version_ + "'",
                    library_);
    }
    const auto check = [this](ort::Status* status) {
      check_status(status, kRuntime, "ONNX Runtime cannot be set up", library_);
    };
    check(ort::CreateEnv::call(api_, ort::kLogFatal, "bench_runner", &environment_));
    check(ort::CreateSessionOptions::call(api_, &options_));
    check(ort::SetSessionGraphOptimizationLevel::call(api_, options_, ort::kAllOptimizations));
    check(ort::SetIntraOpNumThreads::call(api_, options_, threads));
    check(ort::SetInterOpNumThreads::call(api_, options_, 1));
    check(ort::CreateCpuMemoryInfo::call(api_, ort::kArenaAllocator, ort::kDefaultMemory,
                                         &cpu_memory_));
    check(ort::GetAllocatorWithDefaultOptions::call(api_, &allocator_));
  }

  std::string runtime_version() const override { return version_; }

  void enable_profiling(const std::string& scratch) override {
    check_status(ort::EnableProfiling::call(api_, options_, scratch.c_str()), kRuntime,
                 "ONNX Runtime cannot profile", library_);
  }

  std::string profile() override {
    char* path = nullptr;
    check_status(ort::SessionEndProfiling::call(api_, session_, allocator_, &path), kInference,
                 "ONNX Runtime has no profile", model_);
    const std::string file(path == nullptr ? "" : path);  // stays: it belongs to the allocator
    const std::string text = read_and_remove(file);
    if (text.empty()) {
      throw Failure(kInference, "ONNX Runtime's profile is missing or too long", file);
    }
    return text;
  }

  void load(const std::string& model) override {
    model_ = model;
    const char* format = is_ort_format(model) ? "ORT" : "ONNX";
    check_load(
        ort::AddSessionConfigEntry::call(api_, options_, "session.load_model_format", format));
    // x86 without VNNI saturates u8 x s8 products in 16 bits, which no ARM core does; this keeps
    // them exact, so that this machine computes what a phone computes. It means nothing on ARM.
    check_load(ort::AddSessionConfigEntry::call(api_, options_, "session.x64quantprecision", "1"));
    check_load(ort::CreateSession::call(api_, environment_, model.c_str(), options_, &session_));
    std::size_t count = 0;
    check_load(ort::SessionGetInputCount::call(api_, session_, &count));
    for (std::size_t i = 0; i < count; ++i) {
      ort::TypeInfo* type = nullptr;
      char* name = nullptr;
      check_load(ort::SessionGetInputName::call(api_, session_, i, allocator_, &name));
      check_load(ort::SessionGetInputTypeInfo::call(api_, session_, i, &type));
      inputs_.push_back(read_spec(type, name, "input"));
      input_names_.push_back(name);  // stays: Run wants it each time
    }
    check_load(ort::SessionGetOutputCount::call(api_, session_, &count));
    for (std::size_t i = 0; i < count; ++i) {
      ort::TypeInfo* type = nullptr;
      char* name = nullptr;
      check_load(ort::SessionGetOutputName::call(api_, session_, i, allocator_, &name));
      check_load(ort::SessionGetOutputTypeInfo::call(api_, session_, i, &type));
      outputs_.push_back(read_spec(type, name, "output"));
      output_names_.push_back(name);
    }
    output_values_.assign(count, nullptr);
  }

  const std::vector<TensorSpec>& inputs() const override { return inputs_; }
  const std::vector<TensorSpec>& outputs() const override { return outputs_; }

  void bind_inputs(const std::vector<void*>& data) override {
    for (const ort::Value* value : input_values_) {
      ort::ReleaseValue::call(api_, const_cast<ort::Value*>(value));
    }
    input_values_.clear();
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      const TensorSpec& spec = inputs_[i];
      ort::Value* value = nullptr;
      check_status(ort::CreateTensorWithData::call(api_, cpu_memory_, data[i], spec.bytes(),
                                                   spec.shape.data(), spec.shape.size(),
                                                   element_type(spec), &value),
                   kInputs, "input '" + spec.name + "' is refused", model_);
      input_values_.push_back(value);
    }
  }

  void before_inference() override {
    for (ort::Value*& value : output_values_) {
      if (value != nullptr) {
        ort::ReleaseValue::call(api_, value);
        value = nullptr;  // the runtime makes the output again
      }
    }
  }

  bool execute() noexcept override {
    failure_ = ort::Run::call(api_, session_, nullptr, input_names_.data(), input_values_.data(),
                              input_values_.size(), output_names_.data(), output_names_.size(),
                              output_values_.data());
    return failure_ == nullptr;
  }

  std::string failure_reason() const override {
    return failure_ == nullptr ? "" : ort::GetErrorMessage::call(api_, failure_);
  }

  OutputView output(std::size_t index) override {
    const auto check = [&](ort::Status* status) {
      check_status(status, kInference, "output " + std::to_string(index) + " cannot be read",
                   model_);
    };
    ort::Value* value = output_values_[index];
    int is_tensor = 0;
    if (value != nullptr) {
      check(ort::IsTensor::call(api_, value, &is_tensor));
    }
    if (is_tensor == 0) {
      throw Failure(kInference, "output " + std::to_string(index) + " is no tensor", model_);
    }
    OutputView view;
    view.spec = outputs_[index];
    ort::TensorInfo* info = nullptr;
    check(ort::GetTensorTypeAndShape::call(api_, value, &info));
    std::size_t rank = 0;
    check(ort::GetDimensionsCount::call(api_, info, &rank));
    view.spec.shape.resize(rank);
    check(ort::GetDimensions::call(api_, info, view.spec.shape.data(), rank));
    ort::ReleaseTensorInfo::call(api_, info);
    void* data = nullptr;
    check(ort::GetTensorMutableData::call(api_, value, &data));
    view.data = data;
    return view;
  }

 private:
  void check_status(ort::Status* status, ExitCode code, const std::string& what,
                    const std::string& where) const {
    if (status != nullptr) {
      const std::string reason = ort::GetErrorMessage::call(api_, status);
      ort::ReleaseStatus::call(api_, status);
      throw Failure(code, what + " (" + reason + ")", where);
    }
  }

  void check_load(ort::Status* status) const {
    check_status(status, kModel, "the model cannot be loaded", model_);
  }

  static int element_type(const TensorSpec& spec) {
    for (const DataType& type : kDataTypes) {
      if (spec.dtype == type.name) {
        return type.code;
      }
    }
    return 0;
  }

  // Takes `type` over.
  TensorSpec read_spec(ort::TypeInfo* type, const char* name, const char* kind) const {
    TensorSpec spec;
    spec.name = name;
    int onnx_type = 0;
    check_load(ort::GetOnnxTypeFromTypeInfo::call(api_, type, &onnx_type));
    if (onnx_type != ort::kOnnxTypeTensor) {
      throw Failure(kModel, std::string(kind) + " '" + spec.name + "' of the model is no tensor",
                    model_);
    }
    const ort::TensorInfo* info = nullptr;
    check_load(ort::CastTypeInfoToTensorInfo::call(api_, type, &info));
    int code = 0;
    std::size_t rank = 0;
    check_load(ort::GetTensorElementType::call(api_, info, &code));
    check_load(ort::GetDimensionsCount::call(api_, info, &rank));
    spec.shape.resize(rank);
    check_load(ort::GetDimensions::call(api_, info, spec.shape.data(), rank));
    ort::ReleaseTypeInfo::call(api_, type);
    for (const DataType& known : kDataTypes) {
      if (known.code == code) {
        spec.dtype = known.name;
        spec.item_bytes = known.bytes;
      }
    }
    if (spec.item_bytes == 0) {
      throw Failure(kModel,
                    std::string(kind) + " '" + spec.name +
                        "' of the model has an element type that is not supported",
                    model_);
    }
    return spec;
  }

  std::string library_;
  std::string version_;
  std::string model_;
  const void* api_ = nullptr;
  ort::Env* environment_ = nullptr;
  ort::SessionOptions* options_ = nullptr;
  ort::MemoryInfo* cpu_memory_ = nullptr;
  ort::Allocator* allocator_ = nullptr;
  ort::Session* session_ = nullptr;
  ort::Status* failure_ = nullptr;
  std::vector<TensorSpec> inputs_;
  std::vector<TensorSpec> outputs_;
  std::vector<const char*> input_names_;
  std::vector<const char*> output_names_;
  std::vector<const ort::Value*> input_values_;
  std::vector<ort::Value*> output_values_;
};

}  // namespace
}  // namespace pocketship

extern "C" __attribute__((visibility("default"))) pocketship::Backend* ps_create_backend(
    int threads, const char* folder) {
  return new pocketship::OnnxRuntimeBackend(threads, folder);
}
