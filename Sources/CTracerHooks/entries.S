/* SPDX-License-Identifier: Apache-2.0
 * The exported names of the malloc family, for x86-64 System V. */

/* struct tracer_registers, pushed so that it lies in memory as declared, 16-byte aligned with the
 * word below it: the first argument, which malloc's stub takes from there. The values are the caller's own:
 * nothing has run since its call. */
.macro push_registers
  pushq %r15
  .cfi_adjust_cfa_offset 8
  pushq %r14
  .cfi_adjust_cfa_offset 8
  pushq %r13
  .cfi_adjust_cfa_offset 8
  pushq %r12
  .cfi_adjust_cfa_offset 8
  pushq %rbp
  .cfi_adjust_cfa_offset 8
  pushq %rbx
  .cfi_adjust_cfa_offset 8
  pushq %rdi
  .cfi_adjust_cfa_offset 8
.endm

/* The hooks and the allocator keep the callee-saved registers, as any function does: there is nothing to
 * restore. */
.macro drop_registers
  addq $56, %rsp
  .cfi_adjust_cfa_offset -56
.endm

/* Up to three arguments survive the search for the originals. */
.macro find_and_retry name, finder
  pushq %rdi
  .cfi_adjust_cfa_offset 8
  pushq %rsi
  .cfi_adjust_cfa_offset 8
  pushq %rdx
  .cfi_adjust_cfa_offset 8
  call \finder
  popq %rdx
  .cfi_adjust_cfa_offset -8
  popq %rsi
  .cfi_adjust_cfa_offset -8
  popq %rdi
  .cfi_adjust_cfa_offset -8
  jmpq *tracer_entry_\name(%rip)
.endm

/* Without endbr64: it would be an instruction a call, and say what is not so, since a library is
 * marked for indirect branch tracking as a whole or not at all, and this file is not. */
.macro entry name
  .data
  .balign 8
  .globl tracer_entry_\name
  .hidden tracer_entry_\name
tracer_entry_\name:
  .quad tracer_first_\name
  .text
  .balign 16
  .globl \name
  .type \name, @function
\name:
  .cfi_startproc
  jmpq *tracer_entry_\name(%rip)
  .cfi_endproc
  .size \name, . - \name
.endm

.macro first name
  .type tracer_first_\name, @function
tracer_first_\name:
  .cfi_startproc
  find_and_retry \name, tracer_find_originals
  .cfi_endproc
.endm

/* What a dormant entry of the name leads to. The stubs of sampling, which pass nearly every call on,
 * jump through it. */
.macro dormant name
  .data
  .balign 8
  .globl tracer_dormant_\name
  .hidden tracer_dormant_\name
tracer_dormant_\name:
  .quad 0
  .text
.endm

.macro begin_recording name
  .globl tracer_recording_\name
  .hidden tracer_recording_\name
  .type tracer_recording_\name, @function
tracer_recording_\name:
  .cfi_startproc
.endm

/* A name whose hook takes the caller's registers as its last argument. */
.macro recording name, last
  begin_recording \name
  push_registers
  leaq 8(%rsp), \last
  call tracer_hook_\name
  drop_registers
  ret
  .cfi_endproc
.endm

/* Counts bytes off the thread's way to its next sample, which they reach where the borrow is set.
 * One instruction on memory, so that a signal handler's malloc may come in between. Uses rax. */
.macro count_down size
  movq tracer_countdown@gottpoff(%rip), %rax
  subq \size, %fs:(%rax)
.endm

/* Whether any sampled block lies in the page of an address, or in one that shares its cell: not
 * equal. Uses rax and rcx. */
.macro look_up_page
  movl %edi, %eax
  shrl $12, %eax
  movq tracer_sampled_pages(%rip), %rcx
  cmpb $0, (%rcx,%rax)
.endm

.macro begin_sampling name
  .globl tracer_sampling_\name
  .hidden tracer_sampling_\name
  .type tracer_sampling_\name, @function
  .balign 16
tracer_sampling_\name:
  .cfi_startproc
.endm

/* The rare call: with the caller's registers as the hook's last argument. */
.macro sample name, last
  push_registers
  leaq 8(%rsp), \last
  call tracer_hook_sampled_\name
  drop_registers
  ret
  .cfi_endproc
.endm

/* A name whose size is one of its arguments. */
.macro sampling name, size, last
  begin_sampling \name
  count_down \size
  jb 1f
  jmpq *tracer_dormant_\name(%rip)
1:
  sample \name, \last
.endm

.macro allocating name, last
  entry \name
  first \name
  dormant \name
  recording \name, \last
.endm

.macro plain name
  entry \name
  first \name
.endm

/* malloc calls the original here: the hook behind it then has nothing to keep across a call, and needs no
 * register of the caller's. */
  entry malloc
  first malloc
  dormant malloc
  begin_recording malloc
  push_registers
  cmpq tracer_minimum_request(%rip), %rdi
  cmovb tracer_minimum_request(%rip), %rdi
  call *tracer_originals(%rip) /* malloc is the first of them: start_up.c asserts it */
  movq %rax, %rdi
  movq (%rsp), %rsi
  leaq 8(%rsp), %rdx
  call tracer_hook_allocated
  drop_registers
  ret
  .cfi_endproc

  allocating calloc, %rdx
  allocating realloc, %rdx
  allocating reallocarray, %rcx
  allocating posix_memalign, %rcx
  allocating aligned_alloc, %rdx
  allocating memalign, %rdx
  allocating valloc, %rsi
  allocating pvalloc, %rsi
  sampling malloc, %rdi, %rsi
  sampling posix_memalign, %rdx, %rcx
  sampling aligned_alloc, %rsi, %rdx
  sampling memalign, %rsi, %rdx
  sampling valloc, %rdi, %rsi
  sampling pvalloc, %rdi, %rsi

  /* A product that no allocator has is the hook's affair. */
  begin_sampling calloc
  movq %rdi, %rcx
  imulq %rsi, %rcx
  jo 1f
  count_down %rcx
  jb 1f
  jmpq *tracer_dormant_calloc(%rip)
1:
  sample calloc, %rdx

  /* The new block may be the next sample, and the old one may have been one. */
  begin_sampling realloc
  count_down %rsi
  jb 1f
  look_up_page
  jne tracer_hook_unsampled_realloc
  jmpq *tracer_dormant_realloc(%rip)
1:
  sample realloc, %rdx

  begin_sampling reallocarray
  movq %rsi, %rcx
  imulq %rdx, %rcx
  jo 1f
  movq %rcx, %rsi
  jmp tracer_sampling_realloc
1:
  jmpq *tracer_dormant_reallocarray(%rip)
  .cfi_endproc

  begin_sampling free
  look_up_page
  jne tracer_hook_sampled_free
  jmpq *tracer_dormant_free(%rip)
  .cfi_endproc

  plain free
  dormant free
  plain free_sized
  dormant free_sized
  plain free_aligned_sized
  dormant free_aligned_sized
  plain malloc_usable_size
  plain dlopen
  plain dlclose
  plain _exit
  plain _Exit

/* C++'s operators. A definition below ours that calls malloc (libstdc++'s, libc++'s) is jumped to
 * in every mode, but for sizes that it changes on the way: those go by the recording stub, which
 * names the operator to one C function by its index. One that does nothing but call free is left out. */
.macro operator name, index
  entry \name
  .type tracer_first_\name, @function
tracer_first_\name:
  .cfi_startproc
  movl $\index, %ecx
  find_and_retry \name, tracer_find_operator
  .cfi_endproc
.endm

.macro operator_new name, index
  operator \name, \index
  .globl tracer_nonzero_\name
  .hidden tracer_nonzero_\name
  .type tracer_nonzero_\name, @function
tracer_nonzero_\name:
  .cfi_startproc
  testq %rdi, %rdi
  je tracer_recording_\name
  jmpq *tracer_operators + 8 * \index(%rip)
  .cfi_endproc
  begin_recording \name
  push_registers
  leaq 8(%rsp), %rcx
  movl $\index, %r8d
  call tracer_hook_new
  drop_registers
  ret
  .cfi_endproc
  begin_sampling \name
  count_down %rdi
  jb 1f
  jmpq *tracer_operators + 8 * \index(%rip)
1:
  push_registers
  leaq 8(%rsp), %rcx
  movl $\index, %r8d
  call tracer_hook_sampled_new
  drop_registers
  ret
  .cfi_endproc
.endm

.macro operator_delete name, index
  operator \name, \index
  .globl tracer_own_\name
  .hidden tracer_own_\name
  .set tracer_own_\name, \name
  begin_recording \name
  movl $\index, %ecx
  jmp tracer_hook_delete
  .cfi_endproc
  begin_sampling \name
  look_up_page
  jne 1f
  jmpq *tracer_operators + 8 * \index(%rip)
1:
  movl $\index, %ecx
  jmp tracer_hook_sampled_delete
  .cfi_endproc
.endm

  operator_new _Znwm, 0
  operator_new _Znam, 1
  operator_new _ZnwmRKSt9nothrow_t, 2
  operator_new _ZnamRKSt9nothrow_t, 3
  operator_new _ZnwmSt11align_val_t, 4
  operator_new _ZnamSt11align_val_t, 5
  operator_new _ZnwmSt11align_val_tRKSt9nothrow_t, 6
  operator_new _ZnamSt11align_val_tRKSt9nothrow_t, 7
  operator_delete _ZdlPv, 8
  operator_delete _ZdaPv, 9
  operator_delete _ZdlPvm, 10
  operator_delete _ZdaPvm, 11
  operator_delete _ZdlPvRKSt9nothrow_t, 12
  operator_delete _ZdaPvRKSt9nothrow_t, 13
  operator_delete _ZdlPvSt11align_val_t, 14
  operator_delete _ZdaPvSt11align_val_t, 15
  operator_delete _ZdlPvmSt11align_val_t, 16
  operator_delete _ZdaPvmSt11align_val_t, 17
  operator_delete _ZdlPvSt11align_val_tRKSt9nothrow_t, 18
  operator_delete _ZdaPvSt11align_val_tRKSt9nothrow_t, 19

/* heaptap_track(domain, address, size): the block's stack begins at its caller. */
  .text
  .balign 16
  .globl heaptap_track
  .type heaptap_track, @function
heaptap_track:
  .cfi_startproc
  endbr64
  push_registers
  leaq 8(%rsp), %rcx
  call tracer_track
  drop_registers
  ret
  .cfi_endproc
  .size heaptap_track, . - heaptap_track

  .section .note.GNU-stack, "", @progbits
