// SPDX-License-Identifier: Apache-2.0
// The sampling side of the malloc family: called where a thread's bytes have reached the next sample,
// and for blocks in a page in which there is one.

import CTracerHooks
import CTracerPlatform

/// Tells the recorder of a block, if one of its bytes is a sample.
@inline(__always)
private func sampled(
  _ byteCount: Int, _ registers: UnsafePointer<tracer_registers>,
  _ allocate: () -> UnsafeMutableRawPointer?
) -> UnsafeMutableRawPointer? {
  let isSampled = core.countsOut(UInt64(UInt(bitPattern: byteCount)))
  let block = allocate()
  if isSampled, let block {
    core.didSample(block, UInt64(UInt(bitPattern: byteCount)), registers)
  }
  return block
}

@c(tracer_hook_sampled_malloc)
public func hookSampledMalloc(
  _ byteCount: Int, _ registers: UnsafePointer<tracer_registers>
) -> UnsafeMutableRawPointer? {
  sampled(byteCount, registers) { tracer_originals.malloc.unsafelyUnwrapped(byteCount) }
}

@c(tracer_hook_sampled_calloc)
public func hookSampledCalloc(
  _ count: Int, _ size: Int, _ registers: UnsafePointer<tracer_registers>
) -> UnsafeMutableRawPointer? {
  let (total, isTooLarge) = count.multipliedReportingOverflow(by: size)
  // Not counted: the stub knows no such product. The allocator says no, and sets errno.
  guard !isTooLarge else { return tracer_originals.calloc.unsafelyUnwrapped(count, size) }
  return sampled(total, registers) { tracer_originals.calloc.unsafelyUnwrapped(count, size) }
}

@c(tracer_hook_sampled_realloc)
public func hookSampledRealloc(
  _ old: UnsafeMutableRawPointer?, _ byteCount: Int, _ registers: UnsafePointer<tracer_registers>
) -> UnsafeMutableRawPointer? {
  // realloc(p, 0) counts no bytes, and never comes here.
  sampled(byteCount, registers) { reallocated(old, byteCount) }
}

@c(tracer_hook_unsampled_realloc)
public func hookUnsampledRealloc(
  _ old: UnsafeMutableRawPointer?, _ byteCount: Int
) -> UnsafeMutableRawPointer? {
  reallocated(old, byteCount)
}

/// Reallocates a block that may have been sampled: what comes of it is another one.
private func reallocated(
  _ old: UnsafeMutableRawPointer?, _ byteCount: Int
) -> UnsafeMutableRawPointer? {
  guard let old else { return tracer_originals.realloc.unsafelyUnwrapped(nil, byteCount) }
  if tracer_boot_contains(old) != 0 { return tracer_boot_realloc(old, byteCount) }
  let taken = core.willReallocateSampled(old)
  let block = tracer_originals.realloc.unsafelyUnwrapped(old, byteCount)
  if block == nil, byteCount != 0 { core.didNotReallocateSampled(old, taken) }
  return block
}

@c(tracer_hook_sampled_posix_memalign)
public func hookSampledPosixMemalign(
  _ result: UnsafeMutablePointer<UnsafeMutableRawPointer?>, _ alignment: Int, _ byteCount: Int,
  _ registers: UnsafePointer<tracer_registers>
) -> Int32 {
  let isSampled = core.countsOut(UInt64(UInt(bitPattern: byteCount)))
  let error = tracer_plain_posix_memalign(result, alignment, byteCount)
  if error == 0, isSampled, let block = result.pointee {
    core.didSample(block, UInt64(UInt(bitPattern: byteCount)), registers)
  }
  return error
}

@c(tracer_hook_sampled_aligned_alloc)
public func hookSampledAlignedAlloc(
  _ alignment: Int, _ byteCount: Int, _ registers: UnsafePointer<tracer_registers>
) -> UnsafeMutableRawPointer? {
  sampled(byteCount, registers) { tracer_plain_aligned_alloc(alignment, byteCount) }
}

@c(tracer_hook_sampled_memalign)
public func hookSampledMemalign(
  _ alignment: Int, _ byteCount: Int, _ registers: UnsafePointer<tracer_registers>
) -> UnsafeMutableRawPointer? {
  sampled(byteCount, registers) { tracer_plain_memalign(alignment, byteCount) }
}

@c(tracer_hook_sampled_valloc)
public func hookSampledValloc(
  _ byteCount: Int, _ registers: UnsafePointer<tracer_registers>
) -> UnsafeMutableRawPointer? {
  sampled(byteCount, registers) { tracer_plain_valloc(byteCount) }
}

@c(tracer_hook_sampled_pvalloc)
public func hookSampledPvalloc(
  _ byteCount: Int, _ registers: UnsafePointer<tracer_registers>
) -> UnsafeMutableRawPointer? {
  sampled(byteCount, registers) { tracer_plain_pvalloc(byteCount) }
}

@c(tracer_hook_sampled_free)
public func hookSampledFree(_ block: UnsafeMutableRawPointer?) {
  guard let block else { return }
  // Before the real free: once it returns, another thread may be handed the same address.
  core.willFreeSampled(block)
  if core.pointee.hasBootBlocks, tracer_boot_contains(block) != 0 { return }
  tracer_originals.free.unsafelyUnwrapped(block)
}

@c(tracer_counts_out)
public func countsOut(_ byteCount: Int) -> Int32 {
  core.countsOut(UInt64(UInt(bitPattern: byteCount))) ? 1 : 0
}

@c(tracer_did_sample)
public func didSample(
  _ block: UnsafeMutableRawPointer, _ byteCount: Int, _ registers: UnsafePointer<tracer_registers>
) {
  core.didSample(block, UInt64(UInt(bitPattern: byteCount)), registers)
}

@c(tracer_will_free_sampled)
public func willFreeSampled(_ block: UnsafeMutableRawPointer?) {
  if let block { core.willFreeSampled(block) }
}
