import Foundation

/// What ends the runner: the exit codes of docs/architecture.md, the same as of the C++ runner.
enum ExitCode: Int32 {
  case usage = 2
  case model = 3
  case inputs = 4
  case runtime = 5
  case inference = 6
  case output = 7
}

/// Why a run came to nothing: what, and on which file or option.
struct Failure: Error {
  let code: ExitCode
  let what: String
  let place: String

  init(_ code: ExitCode, _ what: String, _ place: String) {
    self.code = code
    self.what = what
    self.place = place
  }
}

/// One line on stderr, whatever is in it.
func printFailure(_ failure: Failure) {
  let text = "bench_runner: \(failure.what): \(failure.place)"
  let line = text.split(whereSeparator: { $0.isNewline }).joined(separator: " ") + "\n"
  FileHandle.standardError.write(Data(line.utf8))
}
