import CoreML
import Foundation

/// A compiled model on the CPU, with arrays for its inputs that are there before any inference.
final class LoadedModel {
  private let model: MLModel
  private let features: Features
  private var arrays: [MLMultiArray] = []
  private var provider: MLFeatureProvider?
  private let path: String

  /// Opens the model: what `load_ns` times.
  init(path: String, features: Features) throws {
    self.path = path
    self.features = features
    let configuration = MLModelConfiguration()
    // The simulator has no Neural Engine, and its GPU is the Mac's.
    configuration.computeUnits = .cpuOnly
    do {
      model = try MLModel(
        contentsOf: URL(fileURLWithPath: path), configuration: configuration)
    } catch {
      throw Failure(.model, "Core ML cannot load the model (\(error.localizedDescription))", path)
    }
  }

  /// Checks the model against the features and makes the inputs' arrays.
  func prepare() throws {
    let described = model.modelDescription
    guard Set(described.inputDescriptionsByName.keys) == Set(features.inputs.map(\.name)) else {
      let names = described.inputDescriptionsByName.keys.sorted().joined(separator: ", ")
      throw Failure(.inputs, "the model's inputs are \(names)", path)
    }
    for output in features.outputs where described.outputDescriptionsByName[output.name] == nil {
      throw Failure(.model, "the model has no output \(output.name)", path)
    }
    var values: [String: Any] = [:]
    for input in features.inputs {
      guard let constraint = described.inputDescriptionsByName[input.name]?.multiArrayConstraint
      else {
        throw Failure(.inputs, "the input \(input.name) is no multi-array", path)
      }
      let shape = constraint.shape.map(\.intValue)
      guard shape.reduce(1, *) == input.count else {
        throw Failure(
          .inputs, "the input \(input.name) has the shape \(shape), not \(input.shape)", path)
      }
      let array: MLMultiArray
      do {
        array = try MLMultiArray(shape: constraint.shape, dataType: constraint.dataType)
      } catch {
        throw Failure(.inputs, "no memory for the input \(input.name)", path)
      }
      arrays.append(array)
      values[input.name] = MLFeatureValue(multiArray: array)
    }
    do {
      provider = try MLDictionaryFeatureProvider(dictionary: values)
    } catch {
      throw Failure(.inputs, "Core ML refuses the inputs (\(error.localizedDescription))", path)
    }
  }

  /// Takes the inputs of one inference, one tensor after another.
  func setInputs(_ raw: UnsafeRawBufferPointer) throws {
    var at = 0
    for (array, feature) in zip(arrays, features.inputs) {
      let part = UnsafeRawBufferPointer(rebasing: raw[at..<(at + feature.bytes)])
      try fill(array, from: part, as: feature)
      at += feature.bytes
    }
  }

  /// One inference with its begin and end on the clock; nothing else stands between the two reads.
  func run() throws -> (begin: UInt64, end: UInt64, outputs: MLFeatureProvider) {
    guard let provider = provider else {
      throw Failure(.inputs, "the inputs were not prepared", path)
    }
    do {
      let begin = nowNs()
      let outputs = try model.prediction(from: provider)
      let end = nowNs()
      return (begin, end, outputs)
    } catch {
      throw Failure(.inference, "the inference failed (\(error.localizedDescription))", path)
    }
  }

  /// All outputs of an inference in order, as the raw file holds them.
  func rawOutputs(_ outputs: MLFeatureProvider) throws -> Data {
    var data = Data()
    for feature in features.outputs {
      guard let array = outputs.featureValue(for: feature.name)?.multiArrayValue else {
        throw Failure(.inference, "the output \(feature.name) is no multi-array", path)
      }
      data.append(try rawBytes(of: array, as: feature))
    }
    return data
  }
}
