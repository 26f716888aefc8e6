// ExecuTorch: XNNPACK, the optimized and the quantized kernels, all of the wheel's C++ SDK.
#include <executorch/extension/data_loader/mmap_data_loader.h>
#include <executorch/extension/memory_allocator/malloc_memory_allocator.h>
#include <executorch/runtime/executor/method.h>
#include <executorch/runtime/executor/program.h>
#include <executorch/runtime/platform/platform.h>
#include <executorch/runtime/platform/runtime.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>

#include "backend.h"
#include "failure.h"
#include "operator_tracer.h"
#include "tensor_layout.h"

// The SDK ships the thread pool's library but not its header.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  std::size_t get_thread_count() const;
  bool _unsafe_reset_threadpool(std::uint32_t new_thread_count);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace pocketship {
namespace {

namespace et = executorch::runtime;
using executorch::aten::ScalarType;
using executorch::aten::Tensor;
using executorch::aten::TensorImpl;

constexpr const char* kMethod = "forward";
constexpr std::size_t kMessageBytes = 256;

// The first error that the runtime logged: it says more than the error code ("Missing operator").
char first_error[kMessageBytes];

void keep_first_error(et_timestamp_t, et_pal_log_level_t level, const char*, const char*,
                      std::size_t, const char* message, std::size_t length) {
  if ((level == kError || level == kFatal) && first_error[0] == '\0') {
    const std::size_t kept = length < kMessageBytes ? length : kMessageBytes - 1;
    std::memcpy(first_error, message, kept);
    first_error[kept] = '\0';
  }
}

std::string reason(et::Error error) {
  char code[24];
  std::snprintf(code, sizeof(code), "error 0x%02x", static_cast<unsigned>(error));
  return first_error[0] == '\0' ? code : std::string(code) + ", " + first_error;
}

struct DataType {
  const char* name;
  std::size_t bytes;
};

DataType data_type(ScalarType type) {
  switch (type) {
    case ScalarType::Byte:
      return {"uint8", 1};
    case ScalarType::Char:
      return {"int8", 1};
    case ScalarType::Short:
      return {"int16", 2};
    case ScalarType::Int:
      return {"int32", 4};
    case ScalarType::Long:
      return {"int64", 8};
    case ScalarType::Half:
      return {"float16", 2};
    case ScalarType::Float:
      return {"float32", 4};
    case ScalarType::Double:
      return {"float64", 8};
    case ScalarType::Bool:
      return {"bool", 1};
    case ScalarType::BFloat16:
      return {"bfloat16", 2};
    case ScalarType::UInt16:
      return {"uint16", 2};
    case ScalarType::UInt32:
      return {"uint32", 4};
    case ScalarType::UInt64:
      return {"uint64", 8};
    default:
      return {nullptr, 0};
  }
}

struct Parameter {
  TensorSpec spec;
  Layout layout;
  ScalarType type;
  bool planned;  // lies in memory that the program planned, which an inference may overwrite
};

// An input as the method gets it; the arrays must outlive the tensor.
struct BoundInput {
  std::vector<TensorImpl::SizesType> sizes;
  std::vector<TensorImpl::DimOrderType> order;
  std::vector<TensorImpl::StridesType> strides;
  std::vector<char> reordered;
  std::unique_ptr<TensorImpl> tensor;
};

class ExecuTorchBackend final : public Backend {
 public:
  explicit ExecuTorchBackend(int threads) {
    et::register_pal(et::PalImpl::create(&keep_first_error, __FILE__));
    et::runtime_init();
    auto* pool = executorch::extension::threadpool::get_threadpool();
    // Without /sys the runtime cannot tell the cores apart and has no pool: the calling thread
    // computes alone.
    const auto wanted = static_cast<std::uint32_t>(threads);
    const bool has_wanted = pool == nullptr ? wanted == 1
                                            : pool->_unsafe_reset_threadpool(wanted) &&
                                                  pool->get_thread_count() == wanted;
    if (!has_wanted) {
      throw Failure(kRuntime,
                    "the thread pool does not take " + std::to_string(threads) + " threads" +
                        (first_error[0] == '\0' ? "" : std::string(" (") + first_error + ")"),
                    "libexecutorch_threadpool.so");
    }
    first_error[0] = '\0';
  }

  std::string runtime_version() const override { return PS_EXECUTORCH_VERSION; }

  void enable_profiling(const std::string&) override { tracer_.emplace(); }

  std::string profile() override { return tracer_ ? tracer_->json() : ""; }

  void load(const std::string& model) override {
    model_ = model;
    // Mapped, not locked: what an application on a phone does, where RLIMIT_MEMLOCK is small.
    auto loader = executorch::extension::MmapDataLoader::from(
        model.c_str(), executorch::extension::MmapDataLoader::MlockConfig::NoMlock);
    check_load(loader.error());
    loader_.emplace(std::move(loader.get()));
    // The cheap verification takes offsets of a damaged file on trust.
    auto program = et::Program::load(&*loader_, et::Program::Verification::InternalConsistency);
    check_load(program.error());
    program_ = std::make_unique<et::Program>(std::move(program.get()));
    auto meta = program_->method_meta(kMethod);
    check_load(meta.error());
    read_parameters(*meta);
    plan_memory(*meta);
    auto method = program_->load_method(kMethod, manager_.get(), tracer_ ? &*tracer_ : nullptr);
    check_load(method.error());
    method_.emplace(std::move(method.get()));
    give_output_memory();
  }

  const std::vector<TensorSpec>& inputs() const override { return input_specs_; }
  const std::vector<TensorSpec>& outputs() const override { return output_specs_; }

  void bind_inputs(const std::vector<void*>& data) override {
    bound_ = std::vector<BoundInput>(inputs_.size());
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      const Parameter& input = inputs_[i];
      BoundInput& bound = bound_[i];
      void* content = data[i];
      if (!input.layout.is_c_order()) {
        bound.reordered.resize(input.spec.bytes() + kSlackBytes);
        reorder(input.layout, static_cast<const char*>(content), bound.reordered.data(), true);
        content = bound.reordered.data();
      }
      bound.sizes.assign(input.spec.shape.begin(), input.spec.shape.end());
      bound.order = input.layout.order;
      const std::vector<std::int64_t> strides = strides_of(input.layout.shape, input.layout.order);
      bound.strides.assign(strides.begin(), strides.end());
      bound.tensor = std::make_unique<TensorImpl>(
          input.type, static_cast<ssize_t>(bound.sizes.size()), bound.sizes.data(), content,
          bound.order.data(), bound.strides.data());
      set_input(i, kInputs);
    }
    fresh_ = true;
  }

  void before_inference() override {
    if (!fresh_) {
      // Planned inputs share memory with what comes later in the program.
      for (std::size_t i = 0; i < inputs_.size(); ++i) {
        if (inputs_[i].planned) {
          set_input(i, kInference);
        }
      }
    }
    fresh_ = false;
  }

  bool execute() noexcept override {
    error_ = method_->execute();
    return error_ == et::Error::Ok;
  }

  std::string failure_reason() const override { return reason(error_); }

  OutputView output(std::size_t index) override {
    const et::EValue& value = method_->get_output(index);
    if (!value.isTensor()) {
      throw Failure(kInference, "output " + std::to_string(index) + " is no tensor", model_);
    }
    const Tensor tensor = value.toTensor();
    OutputView view;
    view.spec = output_specs_[index];
    view.spec.shape.assign(tensor.sizes().begin(), tensor.sizes().end());
    view.data = tensor.const_data_ptr();
    if (view.data == nullptr && view.spec.bytes() > 0) {
      throw Failure(kInference, "output " + std::to_string(index) + " has no data", model_);
    }
    Layout layout{view.spec.shape, {}, view.spec.item_bytes};
    layout.order.assign(tensor.dim_order().begin(), tensor.dim_order().end());
    if (!layout.is_c_order()) {
      reordered_output_.resize(view.spec.bytes());
      reorder(layout, static_cast<const char*>(view.data), reordered_output_.data(), false);
      view.data = reordered_output_.data();
    }
    return view;
  }

 private:
  static constexpr std::size_t kSlackBytes = 64;

  void check_load(et::Error error) const {
    if (error != et::Error::Ok) {
      throw Failure(kModel, "the model cannot be loaded (" + reason(error) + ")", model_);
    }
  }

  Parameter read_parameter(et::Result<et::Tag> tag, et::Result<et::TensorInfo> info,
                           const char* kind, std::size_t index) const {
    const std::string name = std::string(kind) + " " + std::to_string(index);
    check_load(tag.error());
    if (*tag != et::Tag::Tensor) {
      throw Failure(kModel, name + " of the model is no tensor", model_);
    }
    check_load(info.error());
    const DataType type = data_type(info->scalar_type());
    if (type.name == nullptr) {
      throw Failure(kModel, name + " of the model has an element type that is not supported",
                    model_);
    }
    Parameter parameter{{}, {}, info->scalar_type(), info->is_memory_planned()};
    parameter.spec.name = std::string(info->name());
    parameter.spec.dtype = type.name;
    parameter.spec.item_bytes = type.bytes;
    parameter.spec.shape.assign(info->sizes().begin(), info->sizes().end());
    parameter.layout.shape = parameter.spec.shape;
    parameter.layout.order.assign(info->dim_order().begin(), info->dim_order().end());
    parameter.layout.item_bytes = type.bytes;
    check_layout(parameter.layout, name);
    return parameter;
  }

  // The file says it, so it can be anything; the copies above rely on it.
  void check_layout(const Layout& layout, const std::string& name) const {
    std::vector<bool> seen(layout.shape.size(), false);
    bool good = layout.order.size() == layout.shape.size();
    for (std::size_t i = 0; good && i < layout.order.size(); ++i) {
      const std::size_t dimension = layout.order[i];
      good = dimension < seen.size() && !seen[dimension] && layout.shape[i] >= 0;
      if (good) {
        seen[dimension] = true;
      }
    }
    if (!good) {
      throw Failure(kModel, name + " of the model has an impossible layout", model_);
    }
  }

  void read_parameters(const et::MethodMeta& meta) {
    for (std::size_t i = 0; i < meta.num_inputs(); ++i) {
      inputs_.push_back(read_parameter(meta.input_tag(i), meta.input_tensor_meta(i), "input", i));
      input_specs_.push_back(inputs_.back().spec);
    }
    for (std::size_t i = 0; i < meta.num_outputs(); ++i) {
      outputs_.push_back(
          read_parameter(meta.output_tag(i), meta.output_tensor_meta(i), "output", i));
      output_specs_.push_back(outputs_.back().spec);
    }
  }

  void plan_memory(const et::MethodMeta& meta) {
    for (std::size_t i = 0; i < meta.num_memory_planned_buffers(); ++i) {
      const auto size = meta.memory_planned_buffer_size(i);
      check_load(size.error());
      // calloc: the pages count as resident memory only when the model touches them.
      auto* memory = *size < 0 ? nullptr
                               : static_cast<std::uint8_t*>(
                                     std::calloc(static_cast<std::size_t>(*size) + kSlackBytes, 1));
      if (memory == nullptr) {
        throw Failure(
            kModel, "the model plans for " + std::to_string(*size) + " bytes, which cannot be had",
            model_);
      }
      planned_.push_back({memory, static_cast<std::size_t>(*size)});
    }
    planned_memory_ = std::make_unique<et::HierarchicalAllocator>(
        et::Span<et::Span<std::uint8_t>>(planned_.data(), planned_.size()));
    manager_ = std::make_unique<et::MemoryManager>(&method_memory_, planned_memory_.get(),
                                                   &temporary_memory_);
  }

  void give_output_memory() {
    output_memory_.resize(outputs_.size());
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      if (!outputs_[i].planned) {
        output_memory_[i].resize(outputs_[i].spec.bytes() + kSlackBytes);
        // Refused for outputs that are constants or inputs; those have their memory already.
        (void)method_->set_output_data_ptr(output_memory_[i].data(), outputs_[i].spec.bytes(), i);
      }
    }
    first_error[0] = '\0';
  }

  void set_input(std::size_t index, ExitCode code) {
    const et::Error error =
        method_->set_input(et::EValue(Tensor(bound_[index].tensor.get())), index);
    if (error != et::Error::Ok) {
      throw Failure(code, "input " + std::to_string(index) + " is refused (" + reason(error) + ")",
                    model_);
    }
  }

  std::string model_;
  std::optional<OperatorTracer> tracer_;
  std::optional<executorch::extension::MmapDataLoader> loader_;
  std::unique_ptr<et::Program> program_;
  executorch::extension::MallocMemoryAllocator method_memory_;
  executorch::extension::MallocMemoryAllocator temporary_memory_;
  std::vector<et::Span<std::uint8_t>> planned_;
  std::unique_ptr<et::HierarchicalAllocator> planned_memory_;
  std::unique_ptr<et::MemoryManager> manager_;
  std::optional<et::Method> method_;
  std::vector<Parameter> inputs_;
  std::vector<Parameter> outputs_;
  std::vector<TensorSpec> input_specs_;
  std::vector<TensorSpec> output_specs_;
  std::vector<BoundInput> bound_;
  std::vector<std::vector<char>> output_memory_;
  std::vector<char> reordered_output_;
  et::Error error_ = et::Error::Ok;
  bool fresh_ = false;
};

}  // namespace
}  // namespace pocketship

extern "C" __attribute__((visibility("default"))) pocketship::Backend* ps_create_backend(
    int threads, const char* /*folder*/) {
  return new pocketship::ExecuTorchBackend(threads);
}
