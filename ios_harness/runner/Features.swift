import Foundation

/// How a raw file holds an element; names are torch's. Little-endian, as all of Apple's systems are.
enum ElementType: String, Decodable {
  case float64, float32, float16, int64, int32, int16, int8, uint8, bool

  var bytes: Int {
    switch self {
    case .float64, .int64: return 8
    case .float32, .int32: return 4
    case .float16, .int16: return 2
    case .int8, .uint8, .bool: return 1
    }
  }
}

/// One tensor as the raw files hold it, under the name that the Core ML model has for it.
struct Feature: Decodable {
  let name: String
  let dtype: ElementType
  let shape: [Int]

  var count: Int { shape.reduce(1, *) }
  var bytes: Int { count * dtype.bytes }
}

/// What `--features` says. Core ML knows features by name only; this file gives their order in the
/// raw files and the types there, which can be wider than Core ML's (int64 for int32, float32 for
/// float16). `model_bytes` is the size of the package that the model was compiled from.
struct Features: Decodable {
  let modelBytes: Int
  let inputs: [Feature]
  let outputs: [Feature]

  enum CodingKeys: String, CodingKey {
    case modelBytes = "model_bytes"
    case inputs, outputs
  }

  init(file path: String) throws {
    do {
      let data = try Data(contentsOf: URL(fileURLWithPath: path))
      self = try JSONDecoder().decode(Features.self, from: data)
    } catch {
      throw Failure(.usage, "--features cannot be read (\(error))", path)
    }
    let all = inputs + outputs
    guard !inputs.isEmpty, !outputs.isEmpty, all.allSatisfy({ $0.shape.allSatisfy { $0 > 0 } })
    else {
      throw Failure(.usage, "--features needs inputs, outputs and dimensions above 0", path)
    }
    guard Set(inputs.map(\.name)).count == inputs.count else {
      throw Failure(.usage, "--features names an input twice", path)
    }
  }
}
