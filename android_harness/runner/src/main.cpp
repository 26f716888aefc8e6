// bench_runner: loads one model, runs it, leaves its outputs and one JSON. See
// docs/architecture.md.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <new>
#include <optional>

#include "backend_loader.h"
#include "failure.h"
#include "memory_poller.h"
#include "model_inputs.h"
#include "options.h"
#include "process.h"
#include "replaced_file.h"
#include "result.h"
#include "timing.h"

namespace pocketship {
namespace {

std::int64_t model_size(const std::string& path) {
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0 || access(path.c_str(), R_OK) != 0) {
    throw Failure(kModel, std::string("the model cannot be read (") + std::strerror(errno) + ")",
                  path);
  }
  if (!S_ISREG(info.st_mode) || info.st_size == 0) {
    throw Failure(kModel, "the model is no file or is empty", path);
  }
  return info.st_size;
}

// What is written replaces what was there: it must not be what is read.
void refuse_same_file(const Options& options) {
  const auto same = [](const std::string& a, const std::string& b) {
    struct stat first = {};
    struct stat second = {};
    return a == b || (stat(a.c_str(), &first) == 0 && stat(b.c_str(), &second) == 0 &&
                      first.st_dev == second.st_dev && first.st_ino == second.st_ino);
  };
  std::vector<std::string> written = {options.outputs, options.result};
  if (!options.profile.empty()) {
    written.push_back(options.profile);
  }
  for (std::size_t i = 0; i < written.size(); ++i) {
    for (const std::string& read : {options.model, options.inputs}) {
      if (same(written[i], read)) {
        throw Failure(kUsage, "a file is both read and written", written[i]);
      }
    }
    for (std::size_t j = 0; j < i; ++j) {
      if (same(written[i], written[j])) {
        throw Failure(kUsage, "two options name one file to write", written[i]);
      }
    }
  }
}

Backend& open_backend_for(const Options& options) {
  const std::string folder = program_folder();
  enter_phase(Phase::kRuntimeLibrary, folder + "/libps_" + options.backend + ".so");
  Backend& backend = open_backend(options.backend, folder, options.threads);
  enter_phase(Phase::kLoading, options.model);
  return backend;
}

void describe(const Options& options) {
  model_size(options.model);
  Backend& backend = open_backend_for(options);
  backend.load(options.model);
  print_answer(description_json(options, backend));
}

// The outputs go straight from the runtime's memory to the file, so that the peak is the model's.
std::vector<TensorSpec> write_outputs(Backend& backend, ReplacedFile& file) {
  std::vector<TensorSpec> specs;
  for (std::size_t i = 0; i < backend.outputs().size(); ++i) {
    const OutputView view = backend.output(i);
    file.write(view.data, view.spec.bytes());
    specs.push_back(view.spec);
  }
  return specs;
}

// All samples once each, or one sample as often as the limits say.
Timings run_model(const Options& options, Backend& backend, InputFile& inputs,
                  const std::function<void()>& keep_outputs,
                  const std::function<void()>& before_steady) {
  if (options.samples > 0) {
    const auto give = [&](int) { backend.bind_inputs(inputs.next()); };
    return run_each(backend, options.samples, give, keep_outputs, options.model);
  }
  backend.bind_inputs(inputs.next());
  return measure(backend, options.limits, {keep_outputs, before_steady}, options.model);
}

void measure_model(const Options& options) {
  Result result;
  refuse_same_file(options);
  result.model_bytes = model_size(options.model);
  ReplacedFile outputs_file(options.outputs);
  ReplacedFile result_file(options.result);
  std::optional<ReplacedFile> profile_file;
  if (!options.profile.empty()) {
    profile_file.emplace(options.profile);
  }

  // Not pinned like the threads that compute, so it comes before the mask.
  std::optional<MemoryPoller> poller;
  if (options.poll_memory_ms > 0) {
    poller.emplace(options.poll_memory_ms);
  }
  // Threads of the runtime inherit the mask, so it comes before the runtime.
  result.affinity_applied = !options.cpu_mask.empty() && apply_cpu_mask(options.cpu_mask);
  result.baseline_rss_kib = status_kib("VmRSS");
  Backend& backend = open_backend_for(options);
  result.runtime_version = backend.runtime_version();
  if (profile_file) {
    backend.enable_profiling(options.profile + ".trace");
  }

  const std::int64_t begin = monotonic_ns();
  backend.load(options.model);
  result.load_ns = monotonic_ns() - begin;
  result.loaded_rss_kib = status_kib("VmRSS");
  result.inputs = backend.inputs();

  InputFile inputs(options.inputs, result.inputs, std::max(options.samples, 1));
  enter_phase(Phase::kInferring, options.model);
  const auto keep_outputs = [&] { result.outputs = write_outputs(backend, outputs_file); };
  const auto before_steady = [&] {
    if (poller) {
      poller->mark_steady();
    }
  };
  result.timings = run_model(options, backend, inputs, keep_outputs, before_steady);
  result.peak_rss_kib = status_kib("VmHWM");
  if (poller) {
    result.memory = poller->stop();
  }

  const std::string json = result_json(options, result);
  if (profile_file) {
    const std::string profile = backend.profile();
    if (profile.empty()) {
      throw Failure(kRuntime, "this backend cannot profile", options.backend);
    }
    profile_file->write(profile.data(), profile.size());
    profile_file->commit();
  }
  outputs_file.commit();
  result_file.write(json.data(), json.size());
  result_file.commit();
  // The result is out: a runtime that crashes when it is torn down must not undo that.
  _exit(0);
}

int run(int argc, char** argv) {
  try {
    contain_runtimes();
    const Options options = parse_options(argc, argv);
    switch (options.action) {
      case Action::kHelp:
        print_answer(kUsageText);
        break;
      case Action::kVersion:
        print_answer(version_json());
        break;
      case Action::kDescribe:
        describe(options);
        break;
      case Action::kMeasure:
        measure_model(options);
        break;
    }
    _exit(0);
  } catch (const Failure& failure) {
    print_failure(failure.what());
    return failure.code();
  } catch (const std::bad_alloc&) {
    return fail_in_phase("no memory left");
  } catch (const std::exception& error) {
    return fail_in_phase(error.what());
  }
}

}  // namespace
}  // namespace pocketship

int main(int argc, char** argv) {
  // No destructors of the runtimes' globals after a failure either.
  _exit(pocketship::run(argc, argv));
}
