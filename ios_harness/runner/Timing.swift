import Foundation

/// Nanoseconds of the Mac's running time (it stands still while the Mac sleeps).
func nowNs() -> UInt64 {
  clock_gettime_nsec_np(CLOCK_UPTIME_RAW)
}

private let minuteNs: UInt64 = 60_000_000_000

/// Times of all inferences, in nanoseconds, as the result's keys of the same names have them.
struct Timings {
  var firstNs: UInt64 = 0
  var warmupNs: [UInt64] = []
  var steadyNs: [UInt64] = []
  /// How many of the steady inferences began in the first minute, in the second, and so on.
  var steadyMinutes: [Int] = []
  var stoppedBy = ""
}

/// Why a phase of inferences is over; nil: it goes on.
private func limitReached(
  count: Int, elapsed: UInt64, minCount: Int, minNs: UInt64, maxNs: UInt64
) -> String? {
  if count >= minCount && elapsed >= minNs { return "iterations" }
  if count > 0 && elapsed >= maxNs { return "max_seconds" }
  return count >= maxSamples ? "max_samples" : nil
}

/// The first inference, whose outputs `keep` gets, then warm-up, then steady ones, by the limits of
/// docs/architecture.md. `--iterations 0` is the first one alone.
func measure(_ model: LoadedModel, _ options: Options, keep: (Data) throws -> Void) throws
  -> Timings
{
  var timings = Timings()
  timings.warmupNs.reserveCapacity(max(options.warmupIterations, 1 << 16))
  timings.steadyNs.reserveCapacity(max(options.iterations, 1 << 16))
  timings.firstNs = try first(model, keep)
  timings.stoppedBy = "iterations"
  if options.iterations == 0 { return timings }

  var start = nowNs()
  var elapsed: UInt64 = 0
  while limitReached(
    count: timings.warmupNs.count, elapsed: elapsed, minCount: options.warmupIterations,
    minNs: options.warmupNs, maxNs: options.maxNs) == nil
  {
    let (begin, end) = try once(model)
    timings.warmupNs.append(end - begin)
    elapsed = end - start
  }

  start = nowNs()
  var metNs: UInt64 = 0  // when the number of iterations was reached
  var over: String?
  repeat {
    let (begin, end) = try once(model)
    timings.steadyNs.append(end - begin)
    elapsed = end - start
    let minute = Int((begin - start) / minuteNs)
    while timings.steadyMinutes.count <= minute { timings.steadyMinutes.append(0) }
    timings.steadyMinutes[minute] += 1
    if timings.steadyNs.count == options.iterations { metNs = elapsed }
    over = limitReached(
      count: timings.steadyNs.count, elapsed: elapsed, minCount: options.iterations,
      minNs: options.minNs, maxNs: options.maxNs)
  } while over == nil
  // Iterations went on after their number was reached: it was the time that was waited for.
  let waited = over == "iterations" && metNs < options.minNs
  timings.stoppedBy = waited ? "min_seconds" : over ?? ""
  return timings
}

/// Each of `count` inputs once; `give` has the model take the next one.
func measureEach(
  _ model: LoadedModel, count: Int, give: (Int) throws -> Void, keep: (Data) throws -> Void
) throws -> Timings {
  var timings = Timings()
  for number in 0..<count {
    try give(number)
    let ns = try first(model, keep)
    if number == 0 { timings.firstNs = ns }
  }
  timings.stoppedBy = "samples"
  return timings
}

private func first(_ model: LoadedModel, _ keep: (Data) throws -> Void) throws -> UInt64 {
  try autoreleasepool { () throws -> UInt64 in
    let (begin, end, outputs) = try model.run()
    try keep(try model.rawOutputs(outputs))
    return end - begin
  }
}

// What an inference leaves for the pool is freed after its end was read.
private func once(_ model: LoadedModel) throws -> (UInt64, UInt64) {
  try autoreleasepool { () throws -> (UInt64, UInt64) in
    let (begin, end, _) = try model.run()
    return (begin, end)
  }
}
