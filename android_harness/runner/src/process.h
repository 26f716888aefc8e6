// Facts about this process that only Linux knows.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace pocketship {

// The folder of the program file, also when it was started through the dynamic loader
// (./ld-linux-*.so ./bench_runner), where /proc/self/exe is the loader.
std::string program_folder();

// A value of /proc/self/status in KiB ("VmRSS", "VmHWM"); nothing where it cannot be read.
std::optional<std::int64_t> status_kib(const char* key);

// Restricts the calling thread, and so all threads that it starts later, to the CPUs of `mask`
// (hexadecimal digits, bit 0 is CPU 0). True when the kernel now reports exactly this mask.
bool apply_cpu_mask(const std::string& mask);

// Machine name of the kernel's ABI that this program was compiled for: "aarch64", "x86_64".
const char* architecture();

// CLOCK_MONOTONIC in nanoseconds.
std::int64_t monotonic_ns();

}  // namespace pocketship
