/* SPDX-License-Identifier: Apache-2.0
 * A program that traces itself: heaptap.h, linked. */
#include <heaptap.h>
#include <stdio.h>
#include <stdlib.h>

void *kept[10];

int main(void) {
  int dormant = heaptap_snapshot();
  int started = heaptap_start(0);
  for (int i = 0; i < 10; i++)
    kept[i] = malloc(777);
  int written = heaptap_snapshot();
  int stopped = heaptap_stop();
  void *after = malloc(888);
  free(after);
  printf("%d %d %d %d %d\n", dormant, started, written, stopped, heaptap_snapshot());
  return 0;
}
