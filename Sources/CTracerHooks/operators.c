/* SPDX-License-Identifier: Apache-2.0
 * The recording side of C++'s operators. Compiled with unwind tables: bad_alloc passes through. */
#include "tracer_hooks.h"

extern void *_Nonnull tracer_operators[] __attribute__((visibility("hidden")));
extern int tracer_unsized_delete(int index) __attribute__((visibility("hidden")));
extern size_t tracer_enlarged(size_t size);
extern void tracer_did_new(void *block, size_t size, const struct tracer_registers *registers);
extern void tracer_will_delete(void *block);
extern void tracer_did_delete(void);

extern int tracer_counts_out(size_t size);
extern void tracer_did_sample(void *block, size_t size, const struct tracer_registers *registers);
extern void tracer_will_free_sampled(void *block);

typedef void *new_operator(size_t, size_t, size_t);
typedef void delete_operator(void *, size_t, size_t);

/* Every form takes a size and at most two more words, which are passed on as they came. */
void *tracer_hook_new(size_t size, size_t second, size_t third,
                      const struct tracer_registers *registers, int index) {
  void *block = ((new_operator *)tracer_operators[index])(tracer_enlarged(size), second, third);
  tracer_did_new(block, size, registers);
  return block;
}

void tracer_hook_delete(void *block, size_t second, size_t third, int index) {
  tracer_will_delete(block);
  int unsized = tracer_unsized_delete(index);
  if (unsized != index) {
    second = third; /* the alignment, in the forms that have one */
    index = unsized;
  }
  ((delete_operator *)tracer_operators[index])(block, second, third);
  tracer_did_delete();
}

/* The bytes have been counted off, and have reached the next sample. */
void *tracer_hook_sampled_new(size_t size, size_t second, size_t third,
                              const struct tracer_registers *registers, int index) {
  int is_sampled = tracer_counts_out(size);
  void *block = ((new_operator *)tracer_operators[index])(size, second, third);
  if (is_sampled && block)
    tracer_did_sample(block, size, registers);
  return block;
}

void tracer_hook_sampled_delete(void *block, size_t second, size_t third, int index) {
  tracer_will_free_sampled(block);
  ((delete_operator *)tracer_operators[index])(block, second, third);
}
