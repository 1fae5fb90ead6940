// SPDX-License-Identifier: Apache-2.0
// The recording side of each name of the malloc family: call the original, tell the recorder.

import CTracerHooks
import CTracerPlatform
import Synchronization

/// A request as it is passed on: enlarged where the allocator packs blocks closer than 32 bytes.
@inline(__always)
private func enlarged(_ byteCount: Int) -> Int {
  UInt(bitPattern: byteCount) < UInt(bitPattern: tracer_minimum_request)
    ? tracer_minimum_request : byteCount
}

/// Records a block that was handed out, and answers with it, which its callers return in turn.
///
/// The stub of malloc calls it, and the allocator before: a hook that called the allocator would have to save
/// registers for what comes after, and this one saves none.
@c(tracer_hook_allocated)
public func hookAllocated(
  _ block: UnsafeMutableRawPointer?, _ byteCount: Int,
  _ registers: UnsafePointer<tracer_registers>
) -> UnsafeMutableRawPointer? {
  guard let block else { return nil }
  return core.record(block, byteCount, registers)
}

@c(tracer_hook_calloc)
public func hookCalloc(
  _ count: Int, _ size: Int, _ registers: UnsafePointer<tracer_registers>
) -> UnsafeMutableRawPointer? {
  let (total, isTooLarge) = UInt(bitPattern: count).multipliedReportingOverflow(
    by: UInt(bitPattern: size))
  let byteCount = Int(bitPattern: total)
  let block =
    isTooLarge || enlarged(byteCount) == byteCount
    ? tracer_originals.calloc.unsafelyUnwrapped(count, size)
    : tracer_originals.calloc.unsafelyUnwrapped(1, enlarged(byteCount))
  return hookAllocated(block, byteCount, registers)
}

/// A block of nothing that lies as far from its neighbours as every other, for one that may not;
/// that one, where there is no memory.
@inline(never)
private func exchanged(_ small: UnsafeMutableRawPointer) -> UnsafeMutableRawPointer {
  guard let block = tracer_originals.malloc.unsafelyUnwrapped(tracer_minimum_request) else {
    return small
  }
  tracer_originals.free.unsafelyUnwrapped(small)
  return block
}

@c(tracer_hook_realloc)
public func hookRealloc(
  _ old: UnsafeMutableRawPointer?, _ byteCount: Int, _ registers: UnsafePointer<tracer_registers>
) -> UnsafeMutableRawPointer? {
  guard let old else {
    return hookAllocated(
      tracer_originals.malloc.unsafelyUnwrapped(enlarged(byteCount)), byteCount, registers)
  }
  // realloc(p, 0) is a free in glibc, and what it is elsewhere stays that allocator's affair.
  let taken = byteCount == 0 ? 0 : core.takeForMove(old)
  guard taken != 0 else { return reallocatedSlowly(old, byteCount, registers) }
  guard let block = tracer_originals.realloc.unsafelyUnwrapped(old, enlarged(byteCount)) else {
    core.putBack(old, taken)
    return nil
  }
  return hookAllocated(block, byteCount, registers)
}

@inline(never)
private func reallocatedSlowly(
  _ old: UnsafeMutableRawPointer, _ byteCount: Int, _ registers: UnsafePointer<tracer_registers>
) -> UnsafeMutableRawPointer? {
  if tracer_boot_contains(old) != 0 {
    return hookAllocated(tracer_boot_realloc(old, byteCount), byteCount, registers)
  }
  let taken = core.willReallocate(old)
  var block = tracer_originals.realloc.unsafelyUnwrapped(
    old, byteCount == 0 ? 0 : enlarged(byteCount))
  if byteCount == 0, tracer_minimum_request > 0, let small = block {
    block = exchanged(small)
  }
  if block == nil, byteCount != 0 {
    core.didNotReallocate(old, taken)
    return nil
  }
  core.didReallocate(taken)
  let result = hookAllocated(block, byteCount, registers)
  core.didMove(taken)
  return result
}

@c(tracer_hook_reallocarray)
public func hookReallocarray(
  _ old: UnsafeMutableRawPointer?, _ count: Int, _ size: Int,
  _ registers: UnsafePointer<tracer_registers>
) -> UnsafeMutableRawPointer? {
  let (total, isTooLarge) = UInt(bitPattern: count).multipliedReportingOverflow(
    by: UInt(bitPattern: size))
  // By the allocator itself, which sets errno: no block is larger than the address space.
  return hookRealloc(old, isTooLarge ? Int.max : Int(bitPattern: total), registers)
}

@c(tracer_hook_posix_memalign)
public func hookPosixMemalign(
  _ result: UnsafeMutablePointer<UnsafeMutableRawPointer?>, _ alignment: Int, _ byteCount: Int,
  _ registers: UnsafePointer<tracer_registers>
) -> Int32 {
  let error = tracer_plain_posix_memalign(result, alignment, enlarged(byteCount))
  if error == 0 { _ = hookAllocated(result.pointee, byteCount, registers) }
  return error
}

@c(tracer_hook_aligned_alloc)
public func hookAlignedAlloc(
  _ alignment: Int, _ byteCount: Int, _ registers: UnsafePointer<tracer_registers>
) -> UnsafeMutableRawPointer? {
  hookAllocated(tracer_plain_aligned_alloc(alignment, enlarged(byteCount)), byteCount, registers)
}

@c(tracer_hook_memalign)
public func hookMemalign(
  _ alignment: Int, _ byteCount: Int, _ registers: UnsafePointer<tracer_registers>
) -> UnsafeMutableRawPointer? {
  hookAllocated(tracer_plain_memalign(alignment, enlarged(byteCount)), byteCount, registers)
}

@c(tracer_hook_valloc)
public func hookValloc(
  _ byteCount: Int, _ registers: UnsafePointer<tracer_registers>
) -> UnsafeMutableRawPointer? {
  hookAllocated(tracer_plain_valloc(enlarged(byteCount)), byteCount, registers)
}

@c(tracer_hook_pvalloc)
public func hookPvalloc(
  _ byteCount: Int, _ registers: UnsafePointer<tracer_registers>
) -> UnsafeMutableRawPointer? {
  hookAllocated(tracer_plain_pvalloc(byteCount), byteCount, registers)
}

@c(tracer_hook_free)
public func hookFree(_ block: UnsafeMutableRawPointer?) {
  // free(NULL) is legal and common; it must not enter the tracer.
  guard let block else { return }
  // Before the real free: once it returns, another thread may be handed the same address.
  switch core.takeQuickly(block) {
  case .done: tracer_originals.free.unsafelyUnwrapped(block)
  case .publishing: publishAndFree(block)
  case .unusual: freeSlowly(block)
  }
}

@inline(never)
private func freeSlowly(_ block: UnsafeMutableRawPointer) {
  core.willFree(block)
  if core.pointee.hasBootBlocks, tracer_boot_contains(block) != 0 { return }
  tracer_originals.free.unsafelyUnwrapped(block)
}

@inline(never)
private func publishAndFree(_ block: UnsafeMutableRawPointer) {
  core.publishAndLeave()
  tracer_originals.free.unsafelyUnwrapped(block)
}

@c(tracer_enlarged)
public func enlargedRequest(_ byteCount: Int) -> Int { enlarged(byteCount) }

@c(tracer_did_new)
public func didNew(
  _ block: UnsafeMutableRawPointer?, _ byteCount: Int,
  _ registers: UnsafePointer<tracer_registers>
) {
  if let block { core.didNew(block, byteCount, registers) }
}

@c(tracer_will_delete)
public func willDelete(_ block: UnsafeMutableRawPointer?) { core.willDelete(block) }

@c(tracer_did_delete)
public func didDelete() { core.didDelete() }

@c(tracer_hook_dlopen)
public func beforeLoad() { core.pointee.rows.willLoad() }

@c(tracer_hook_dlclose_before)
public func beforeUnload() { core.pointee.rows.didUnload() }

@c(tracer_hook_dlclose_after)
public func afterUnload() { beforeUnload() }
