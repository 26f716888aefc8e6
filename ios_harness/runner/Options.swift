import Foundation

let usageText = """
  usage: bench_runner --backend coreml --model FOLDER.mlmodelc --features FILE --inputs FILE
           --outputs FILE --result FILE [--warmup-iterations N=10] [--warmup-seconds S=0]
           [--iterations N=50] [--min-seconds S=0] [--max-seconds S=150] [--threads 1]
           [--samples N] [--poll-memory-ms N] [--pid-file FILE]
         bench_runner --version | --help
  exit codes: 0 done, 2 usage, 3 model, 4 inputs, 5 runtime library, 6 inference, 7 output

  """

let maxSamples = 10_000_000

enum Action {
  case measure
  case version
  case help
}

/// The command line. Times are nanoseconds. `--features` is described in Features.swift.
struct Options {
  var action = Action.measure
  var model = ""
  var features = ""
  var inputs = ""
  var outputs = ""
  var result = ""
  var pidFile = ""
  var warmupIterations = 10
  var warmupNs: UInt64 = 0
  var iterations = 50
  var minNs: UInt64 = 0
  var maxNs: UInt64 = 150_000_000_000
  var threads = 1
  /// How many inputs the file holds, each to be run once; 0: one, to be run as the limits say.
  var samples = 0
  var pollMemoryMs = 0

  init(_ arguments: [String]) throws {
    var seen = Set<String>()
    var rest = arguments[...]
    var backend = ""
    while let flag = rest.popFirst() {
      guard seen.insert(flag).inserted else {
        throw Failure(.usage, "an option is given twice", flag)
      }
      if flag == "--version" || flag == "--help" {
        action = flag == "--version" ? .version : .help
        continue
      }
      guard let value = rest.popFirst(), !value.isEmpty else {
        throw Failure(.usage, "an option needs a value", flag)
      }
      switch flag {
      case "--backend": backend = value
      case "--model": model = value
      case "--features": features = value
      case "--inputs": inputs = value
      case "--outputs": outputs = value
      case "--result": result = value
      case "--pid-file": pidFile = value
      case "--warmup-iterations": warmupIterations = try count(flag, value, 0, maxSamples)
      case "--warmup-seconds": warmupNs = try nanoseconds(flag, value)
      case "--iterations": iterations = try count(flag, value, 0, maxSamples)
      case "--min-seconds": minNs = try nanoseconds(flag, value)
      case "--max-seconds": maxNs = try nanoseconds(flag, value)
      case "--samples": samples = try count(flag, value, 1, 1_000_000)
      case "--poll-memory-ms": pollMemoryMs = try count(flag, value, 1, 60_000)
      case "--threads":
        threads = try count(flag, value, 1, 256)
        if threads != 1 {
          throw Failure(.usage, "Core ML chooses its own threads, so --threads is 1", value)
        }
      case "--cpu-mask":
        throw Failure(.usage, "Apple's systems do not pin threads to cores", flag)
      case "--profile":
        throw Failure(.usage, "Core ML tells a program no times of operators", flag)
      default:
        throw Failure(.usage, "unknown option, see --help", flag)
      }
    }
    guard action == .measure else { return }
    for (value, flag) in [
      (backend, "--backend"), (model, "--model"), (features, "--features"),
      (inputs, "--inputs"), (outputs, "--outputs"), (result, "--result"),
    ] where value.isEmpty {
      throw Failure(.usage, "a required option is missing", flag)
    }
    guard backend == "coreml" else {
      throw Failure(.usage, "--backend is coreml", "'\(backend)'")
    }
    // What is written replaces what was there: it must not be what is read.
    let read = [model, features, inputs]
    let written = [outputs, result] + (pidFile.isEmpty ? [] : [pidFile])
    if let twice = written.first(where: { read.contains($0) }) {
      throw Failure(.usage, "a file is both read and written", twice)
    }
    if Set(written).count != written.count {
      throw Failure(.usage, "two options name one file to write", result)
    }
  }
}

private func count(_ flag: String, _ text: String, _ low: Int, _ high: Int) throws -> Int {
  let digits = text.utf8.allSatisfy { $0 >= 0x30 && $0 <= 0x39 }
  guard digits, let value = Int(text), value >= low, value <= high else {
    throw Failure(.usage, "\(flag) needs a whole number from \(low) to \(high)", "'\(text)'")
  }
  return value
}

private func nanoseconds(_ flag: String, _ text: String) throws -> UInt64 {
  let plain = text.utf8.allSatisfy { ($0 >= 0x30 && $0 <= 0x39) || $0 == 0x2e }
  guard plain, let value = Double(text), value.isFinite, value <= 86_400 else {
    throw Failure(.usage, "\(flag) needs seconds from 0 to 86400", "'\(text)'")
  }
  return UInt64(value * 1e9)
}
