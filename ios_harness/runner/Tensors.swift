import CoreML
import Foundation

/// One value on its way between a raw file and Core ML: integers keep all of their bits.
enum Scalar {
  case integer(Int64)
  case real(Double)

  var double: Double {
    switch self {
    case .integer(let value): return Double(value)
    case .real(let value): return value
    }
  }

  /// The value as an integer of that type, nil where it is none or does not fit.
  func exact<T: FixedWidthInteger>(_ type: T.Type) -> T? {
    switch self {
    case .integer(let value): return T(exactly: value)
    case .real(let value): return T(exactly: value)
    }
  }
}

/// Calls `body` with the offset of each element, in elements, in C order whatever the strides are.
func forEachOffset(shape: [Int], strides: [Int], _ body: (Int) throws -> Void) rethrows {
  var index = [Int](repeating: 0, count: shape.count)
  var offset = 0
  for _ in 0..<shape.reduce(1, *) {
    try body(offset)
    var axis = shape.count - 1
    while axis >= 0 {
      index[axis] += 1
      offset += strides[axis]
      if index[axis] < shape[axis] { break }
      offset -= index[axis] * strides[axis]
      index[axis] = 0
      axis -= 1
    }
  }
}

/// Bytes of an element of Core ML's; nil for a type that this runner does not know.
func elementBytes(_ type: MLMultiArrayDataType) -> Int? {
  switch type {
  case .double: return 8
  case .float32, .int32: return 4
  case .float16: return 2
  default: return nil
  }
}

/// Whether every element lies within so many bytes: a layout is not taken on trust.
private func fits(shape: [Int], strides: [Int], elementBytes: Int, bytes: Int) -> Bool {
  guard shape.count == strides.count, strides.allSatisfy({ $0 >= 0 }) else { return false }
  let last = zip(shape, strides).reduce(0) { $0 + ($1.0 - 1) * $1.1 }
  return (last + 1) * elementBytes <= bytes
}

/// Puts one tensor of a raw file into a Core ML array.
///
/// A float is rounded to the array's type. An integer has to be exact there: an int64 that does not
/// fit into int32 is an error and not another number.
func fill(_ array: MLMultiArray, from raw: UnsafeRawBufferPointer, as feature: Feature) throws {
  let type = array.dataType
  let shape = array.shape.map(\.intValue)
  guard let size = elementBytes(type) else {
    throw Failure(.inputs, "an input has a type that this runner does not know", feature.name)
  }
  try array.withUnsafeMutableBytes {
    (buffer: UnsafeMutableRawBufferPointer, strides: [Int]) -> Void in
    guard let base = buffer.baseAddress,
      fits(shape: shape, strides: strides, elementBytes: size, bytes: buffer.count)
    else {
      throw Failure(.inputs, "Core ML gives an input a layout beyond its memory", feature.name)
    }
    var at = 0
    try forEachOffset(shape: shape, strides: strides) { offset in
      let value = load(raw, at, feature.dtype)
      at += feature.dtype.bytes
      guard store(value, base + offset * size, type) else {
        throw Failure(.inputs, "a value cannot be held by the model's input", feature.name)
      }
    }
  }
}

/// The elements of a Core ML array in C order, as a raw file holds them.
func rawBytes(of array: MLMultiArray, as feature: Feature) throws -> Data {
  let type = array.dataType
  let shape = array.shape.map(\.intValue)
  let strides = array.strides.map(\.intValue)
  guard let size = elementBytes(type) else {
    throw Failure(.inference, "an output has a type that this runner does not know", feature.name)
  }
  guard shape.reduce(1, *) == feature.count else {
    throw Failure(.inference, "an output has the shape \(shape), not \(feature.shape)", feature.name)
  }
  var data = Data(count: feature.bytes)
  try data.withUnsafeMutableBytes { (target: UnsafeMutableRawBufferPointer) -> Void in
    try array.withUnsafeBytes { (buffer: UnsafeRawBufferPointer) -> Void in
      guard fits(shape: shape, strides: strides, elementBytes: size, bytes: buffer.count) else {
        throw Failure(.inference, "Core ML gives an output a layout beyond its memory", feature.name)
      }
      var at = 0
      try forEachOffset(shape: shape, strides: strides) { offset in
        guard let value = load(buffer, offset * size, type), save(value, target, at, feature.dtype)
        else {
          throw Failure(
            .inference, "an output value cannot be written as \(feature.dtype)", feature.name)
        }
        at += feature.dtype.bytes
      }
    }
  }
  return data
}

private func load(_ raw: UnsafeRawBufferPointer, _ at: Int, _ type: ElementType) -> Scalar {
  switch type {
  case .float64: return .real(raw.loadUnaligned(fromByteOffset: at, as: Double.self))
  case .float32: return .real(Double(raw.loadUnaligned(fromByteOffset: at, as: Float.self)))
  case .float16: return .real(Double(raw.loadUnaligned(fromByteOffset: at, as: Float16.self)))
  case .int64: return .integer(raw.loadUnaligned(fromByteOffset: at, as: Int64.self))
  case .int32: return .integer(Int64(raw.loadUnaligned(fromByteOffset: at, as: Int32.self)))
  case .int16: return .integer(Int64(raw.loadUnaligned(fromByteOffset: at, as: Int16.self)))
  case .int8: return .integer(Int64(raw.loadUnaligned(fromByteOffset: at, as: Int8.self)))
  case .uint8: return .integer(Int64(raw.loadUnaligned(fromByteOffset: at, as: UInt8.self)))
  case .bool: return .integer(raw.loadUnaligned(fromByteOffset: at, as: UInt8.self) == 0 ? 0 : 1)
  }
}

private func load(
  _ raw: UnsafeRawBufferPointer, _ at: Int, _ type: MLMultiArrayDataType
) -> Scalar? {
  switch type {
  case .double: return load(raw, at, ElementType.float64)
  case .float32: return load(raw, at, ElementType.float32)
  case .float16: return load(raw, at, ElementType.float16)
  case .int32: return load(raw, at, ElementType.int32)
  default: return nil
  }
}

/// False where the value is an integer that the type cannot hold exactly.
private func store(
  _ value: Scalar, _ target: UnsafeMutableRawPointer, _ type: MLMultiArrayDataType
) -> Bool {
  switch type {
  case .double:
    target.storeBytes(of: value.double, as: Double.self)
    return isExact(value, value.double)
  case .float32:
    let rounded = Float(value.double)
    target.storeBytes(of: rounded, as: Float.self)
    return isExact(value, Double(rounded))
  case .float16:
    let rounded = Float16(value.double)
    target.storeBytes(of: rounded, as: Float16.self)
    return isExact(value, Double(rounded))
  case .int32:
    guard let exact = value.exact(Int32.self) else { return false }
    target.storeBytes(of: exact, as: Int32.self)
    return true
  default:
    return false
  }
}

/// Floats may be rounded, integers may not.
private func isExact(_ value: Scalar, _ stored: Double) -> Bool {
  guard case .integer(let whole) = value else { return true }
  return Int64(exactly: stored) == whole
}

private func save(
  _ value: Scalar, _ target: UnsafeMutableRawBufferPointer, _ at: Int, _ type: ElementType
) -> Bool {
  func put<T>(_ bits: T?) -> Bool {
    guard let bits = bits else { return false }
    target.storeBytes(of: bits, toByteOffset: at, as: T.self)
    return true
  }
  switch type {
  case .float64: return put(value.double)
  case .float32: return put(Float(value.double))
  case .float16: return put(Float16(value.double))
  case .int64: return put(value.exact(Int64.self))
  case .int32: return put(value.exact(Int32.self))
  case .int16: return put(value.exact(Int16.self))
  case .int8: return put(value.exact(Int8.self))
  case .uint8: return put(value.exact(UInt8.self))
  case .bool: return put(value.double == 0 ? UInt8(0) : UInt8(1))
  }
}
