// What a runtime has to offer to be measured: one class, made by one extern "C" function that a
// shared object exports. A new backend is one more shared object.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace pocketship {

// One input or output. `dtype` is a torch name ("float32"); a dimension of -1 is not known before
// the inference.
struct TensorSpec {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::size_t item_bytes = 0;

  bool is_static() const {
    for (const std::int64_t size : shape) {
      if (size < 0) {
        return false;
      }
    }
    return true;
  }

  // Size in bytes without padding; 0 where a dimension is unknown or the product does not fit.
  std::size_t bytes() const {
    std::size_t total = item_bytes;
    for (const std::int64_t size : shape) {
      if (size < 0 || __builtin_mul_overflow(total, static_cast<std::size_t>(size), &total)) {
        return 0;
      }
    }
    return total;
  }
};

// An output of the inference that just ran: elements in C order, valid until the next
// `before_inference`.
struct OutputView {
  TensorSpec spec;
  const void* data = nullptr;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string runtime_version() const = 0;

  // Has every later inference note what each operator costs; called before `load` or never.
  // `scratch` is the beginning of names of files that the runtime may write. Throws
  // Failure(kRuntime).
  virtual void enable_profiling(const std::string& /*scratch*/) {}

  // The noted costs as JSON text in the runtime's own form (docs/architecture.md); ends profiling.
  // Empty: this backend cannot profile. Throws Failure(kInference).
  virtual std::string profile() { return ""; }

  // Opens the model file and makes it ready for inference. Throws Failure(kModel).
  virtual void load(const std::string& model) = 0;

  // In the model's order; valid after `load`.
  virtual const std::vector<TensorSpec>& inputs() const = 0;
  virtual const std::vector<TensorSpec>& outputs() const = 0;

  // Gives the content of all inputs (C order, 64-byte aligned, readable 64 bytes beyond the end,
  // owned by the caller and unchanged until the next call). May be called again. Throws
  // Failure(kInputs).
  virtual void bind_inputs(const std::vector<void*>& data) = 0;

  // Work that an application does around an inference and that is not the inference: frees the last
  // outputs, gives the inputs again where the runtime overwrites them. Throws Failure(kInference).
  virtual void before_inference() = 0;

  // One inference and nothing else: this is what is timed.
  virtual bool execute() noexcept = 0;

  // Why the last `execute` returned false.
  virtual std::string failure_reason() const = 0;

  // The `index`th output of the last inference. Throws Failure(kInference).
  virtual OutputView output(std::size_t index) = 0;
};

// Exported by each backend. `threads` is the number of threads an inference may use, the calling
// one included; `folder` is where the program lies. Throws Failure(kRuntime).
using CreateBackend = Backend*(int threads, const char* folder);
inline constexpr const char* kCreateBackendSymbol = "ps_create_backend";

}  // namespace pocketship
