import Foundation

/// Memory of this process as the kernel accounts it, in KiB; all 0 where it does not say.
struct ProcessMemory {
  var rssKib: Int64 = 0
  var peakRssKib: Int64 = 0
  var footprintKib: Int64 = 0
  var peakFootprintKib: Int64 = 0

  static func now() -> ProcessMemory {
    var info = task_vm_info_data_t()
    let words = MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<integer_t>.size
    var count = mach_msg_type_number_t(words)
    let status = withUnsafeMutablePointer(to: &info) { pointer in
      pointer.withMemoryRebound(to: integer_t.self, capacity: words) {
        task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), $0, &count)
      }
    }
    guard status == KERN_SUCCESS else { return ProcessMemory() }
    let footprint = Int64(clamping: info.phys_footprint)
    // An older kernel fills in less of the structure and leaves the rest 0.
    let peak = Int64(info.ledger_phys_footprint_peak)
    return ProcessMemory(
      rssKib: Int64(clamping: info.resident_size) / 1024,
      peakRssKib: Int64(clamping: info.resident_size_peak) / 1024,
      footprintKib: footprint / 1024,
      peakFootprintKib: max(peak, footprint) / 1024)
  }
}
