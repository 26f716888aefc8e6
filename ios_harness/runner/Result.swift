import Foundation

let runnerVersion = "0.2.0"

/// All that becomes the result's JSON.
struct MeasuredRun {
  let options: Options
  let features: Features
  let loadNs: UInt64
  let timings: Timings
  let baseline: ProcessMemory
  let loaded: ProcessMemory
  let end: ProcessMemory

  func json() throws -> Data {
    var object: [String: Any] = [
      "schema": 1,
      "runner_version": runnerVersion,
      "backend": "coreml",
      "runtime_version": runtimeVersion(),
      "arch": architecture(),
      "model_bytes": features.modelBytes,
      "threads": options.threads,
      "cpu_mask": NSNull(),
      "affinity_applied": false,
      "load_ns": loadNs,
      "first_ns": timings.firstNs,
      "warmup_ns": timings.warmupNs,
      "steady_ns": timings.steadyNs,
      "steady_minutes": timings.steadyMinutes,
      "stopped_by": timings.stoppedBy,
      "samples": options.samples,
      "baseline_rss_kib": baseline.rssKib,
      "loaded_rss_kib": loaded.rssKib,
      "peak_rss_kib": end.peakRssKib,
      "phys_footprint": [
        "baseline_kib": baseline.footprintKib,
        "loaded_kib": loaded.footprintKib,
        "peak_kib": end.peakFootprintKib,
      ],
      "inputs": features.inputs.map(specJSON),
      "outputs": features.outputs.map(specJSON),
    ]
    if options.pollMemoryMs > 0 {
      object["memory"] = [
        "interval_ms": options.pollMemoryMs,
        "steady_from": 0,
        "pss_kib": [Int](),
        "private_dirty_kib": [Int](),
        "reason": "Apple's kernel has no such figure; see phys_footprint_kib",
      ] as [String: Any]
    }
    do {
      var data = try JSONSerialization.data(withJSONObject: object, options: [.sortedKeys])
      data.append(0x0a)
      return data
    } catch {
      throw Failure(.output, "the result cannot be put in JSON", options.result)
    }
  }
}

private func specJSON(_ feature: Feature) -> [String: Any] {
  [
    "name": feature.name,
    "dtype": feature.dtype.rawValue,
    "shape": feature.shape,
    "bytes": feature.bytes,
  ]
}

/// Core ML is a part of the system and has no version of its own.
private func runtimeVersion() -> String {
  let words = ProcessInfo.processInfo.operatingSystemVersionString
  return "iOS " + words.replacingOccurrences(of: "Version ", with: "")
}

func architecture() -> String {
  #if arch(arm64)
    return "arm64"
  #elseif arch(x86_64)
    return "x86_64"
  #else
    return "unknown"
  #endif
}

/// Writes a file whole or not at all: under a temporary name, then renamed.
func writeReplacing(_ data: Data, to path: String) throws {
  let temporary = path + ".tmp"
  do {
    try data.write(to: URL(fileURLWithPath: temporary))
  } catch {
    throw Failure(.output, "cannot be written (\(error.localizedDescription))", path)
  }
  guard rename(temporary, path) == 0 else {
    let why = String(cString: strerror(errno))
    throw Failure(.output, "cannot be written (\(why))", path)
  }
}
