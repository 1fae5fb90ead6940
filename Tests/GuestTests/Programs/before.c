// SPDX-License-Identifier: Apache-2.0
// Allocates and frees as the lines of a pipe say, whose path is the argument: `+SIZE` allocates, `-`
// frees the oldest block that is left, `~SIZE` reallocates it, `?NUMBER` asks for that answer.

#include <stdio.h>
#include <stdlib.h>

static void *blocks[10000];

int main(int count, char **arguments) {
  static char in[4096], out[4096];
  FILE *pipe = count > 1 ? fopen(arguments[1], "r") : stdin;
  setvbuf(pipe, in, _IOFBF, sizeof in);
  setvbuf(stdout, out, _IOLBF, sizeof out);
  char line[64];
  int first = 0, end = 0;
  while (fgets(line, sizeof line, pipe)) {
    size_t size = strtoul(line + 1, NULL, 10);
    if (line[0] == '+')
      blocks[end++] = malloc(size);
    if (line[0] == '-')
      free(blocks[first++]);
    if (line[0] == '~')
      blocks[first] = realloc(blocks[first], size);
    if (line[0] == '?')
      printf("done %zu.\n", size);
  }
  return 0;
}
