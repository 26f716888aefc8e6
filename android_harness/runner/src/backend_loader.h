// Opens the shared object of a backend.
#pragma once

#include <string>

#include "backend.h"

namespace pocketship {

// Opens `<folder>/libps_<name>.so` and makes its backend. Both stay until the process ends: tearing
// a runtime down is not measured and can only fail. Throws Failure(kRuntime) naming the library
// that is missing or does not fit.
Backend& open_backend(const std::string& name, const std::string& folder, int threads);

}  // namespace pocketship
