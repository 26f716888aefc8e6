#include "backend_loader.h"

#include <dlfcn.h>

#include "failure.h"

namespace pocketship {

Backend& open_backend(const std::string& name, const std::string& folder, int threads) {
  const std::string path = folder + "/libps_" + name + ".so";
  // RTLD_NOW: a runtime of another version that lacks a symbol fails here, not in an inference.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = dlerror();
    throw Failure(kRuntime, "a runtime library is missing or does not fit",
                  reason == nullptr ? path : reason);
  }
  auto* create = reinterpret_cast<CreateBackend*>(dlsym(library, kCreateBackendSymbol));
  if (create == nullptr) {
    throw Failure(kRuntime, std::string("the library does not export ") + kCreateBackendSymbol,
                  path);
  }
  return *create(threads, folder.c_str());
}

}  // namespace pocketship
