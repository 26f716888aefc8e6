// bench_runner for the iOS simulator: loads one compiled Core ML model, runs it on the CPU, leaves
// its outputs and one JSON, as the C++ runner does. See docs/ios-simulator.md. Not yet run on a Mac.
import Foundation

private func measureModel(_ options: Options) throws {
  if !options.pidFile.isEmpty {
    try writeReplacing(Data("\(getpid())\n".utf8), to: options.pidFile)
  }
  // A failure leaves no result, also none of an earlier run.
  for path in [options.result, options.outputs] {
    unlink(path)
  }
  let features = try Features(file: options.features)
  var isFolder: ObjCBool = false
  guard FileManager.default.fileExists(atPath: options.model, isDirectory: &isFolder),
    isFolder.boolValue
  else {
    throw Failure(.model, "the model is no folder", options.model)
  }

  let baseline = ProcessMemory.now()
  let begin = nowNs()
  let model = try LoadedModel(path: options.model, features: features)
  let loadNs = nowNs() - begin
  let loaded = ProcessMemory.now()
  try model.prepare()

  let inputs: Data
  do {
    inputs = try Data(contentsOf: URL(fileURLWithPath: options.inputs), options: .mappedIfSafe)
  } catch {
    throw Failure(.inputs, "the inputs cannot be read", options.inputs)
  }
  let each = features.inputs.reduce(0) { $0 + $1.bytes }
  let samples = max(options.samples, 1)
  guard inputs.count == each * samples else {
    throw Failure(
      .inputs, "the inputs have \(inputs.count) bytes, the model needs \(each * samples)",
      options.inputs)
  }

  var outputs = Data()
  let keep: (Data) throws -> Void = { outputs.append($0) }
  let give: (Int) throws -> Void = { number in
    try inputs.withUnsafeBytes { (raw: UnsafeRawBufferPointer) -> Void in
      let part = raw[(number * each)..<((number + 1) * each)]
      try model.setInputs(UnsafeRawBufferPointer(rebasing: part))
    }
  }
  let timings: Timings
  if options.samples > 0 {
    timings = try measureEach(model, count: samples, give: give, keep: keep)
  } else {
    try give(0)
    timings = try measure(model, options, keep: keep)
  }

  let run = MeasuredRun(
    options: options, features: features, loadNs: loadNs, timings: timings,
    baseline: baseline, loaded: loaded, end: ProcessMemory.now())
  let json = try run.json()
  try writeReplacing(outputs, to: options.outputs)
  // The very last act: whoever sees a result knows that all went well.
  try writeReplacing(json, to: options.result)
}

private func run() -> Int32 {
  do {
    let options = try Options(Array(CommandLine.arguments.dropFirst()))
    switch options.action {
    case .help:
      print(usageText, terminator: "")
    case .version:
      print("{\"runner_version\": \"\(runnerVersion)\", \"arch\": \"\(architecture())\"}")
    case .measure:
      try measureModel(options)
    }
    return 0
  } catch let failure as Failure {
    printFailure(failure)
    return failure.code.rawValue
  } catch {
    printFailure(Failure(.inference, "\(error)", "unexpected"))
    return ExitCode.inference.rawValue
  }
}

private let code = run()
fflush(stdout)
// The result is out: a framework that crashes when it is torn down must not undo that.
_exit(code)
