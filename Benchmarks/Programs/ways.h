/* SPDX-License-Identifier: Apache-2.0
 * Functions of which a stack is put together: ten of a kind, each of which calls on by one expression. */
#pragma once

/* Of each thread, so that threads do not wait for each other. */
static _Thread_local volatile int sink;

/* What is called on the last level, and what leads there. */
typedef void *(*level)(int);

/* A store after the call, so that it is no tail call. */
#define FUNCTION(name, digit, call)                                                                \
  __attribute__((noinline)) static void *name##digit(int rest) {                                   \
    void *block = call;                                                                            \
    sink = digit;                                                                                  \
    return block;                                                                                  \
  }
#define LEVEL(name, call)                                                                          \
  FUNCTION(name, 0, call)                                                                          \
  FUNCTION(name, 1, call)                                                                          \
  FUNCTION(name, 2, call)                                                                          \
  FUNCTION(name, 3, call)                                                                          \
  FUNCTION(name, 4, call)                                                                          \
  FUNCTION(name, 5, call)                                                                          \
  FUNCTION(name, 6, call)                                                                          \
  FUNCTION(name, 7, call)                                                                          \
  FUNCTION(name, 8, call)                                                                          \
  FUNCTION(name, 9, call)                                                                          \
  static const level name[10] = {name##0, name##1, name##2, name##3, name##4,                      \
                                 name##5, name##6, name##7, name##8, name##9};

/* The next of a sequence of numbers that look random and are always the same; never from 0. */
static inline unsigned long next_number(unsigned long *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}
