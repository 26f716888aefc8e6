// What both programs share: the file, the clock and the printed samples.
#pragma once

#include <functional>
#include <string>
#include <vector>

// The whole file, followed by 64 readable bytes, at an address that is a multiple of 64.
char* read_aligned(const std::string& path, std::size_t expected_bytes);

[[noreturn]] void give_up(const std::string& why);

// Calls `infer` `warmup` times, then `iterations` times, each between two looks at
// CLOCK_MONOTONIC, and prints the latter's nanoseconds as one JSON list.
void run_loop(int warmup, int iterations, const std::function<void()>& around,
              const std::function<bool()>& infer);
