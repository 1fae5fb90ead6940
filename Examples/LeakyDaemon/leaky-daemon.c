/* SPDX-License-Identifier: Apache-2.0
 * Counts hits by client, for a server that wants to know who calls too often. It leaks.
 *
 *     cc -O2 -g leaky-daemon.c -o leaky-daemon
 *     ./leaky-daemon [PORT]     0, the default, takes a free port; the first line says which
 *
 * Lines over TCP: `hit NAME` counts and answers the sum, `recent` answers who called last.
 *
 * A client is never forgotten, however long ago it called. Of two snapshots with hits by new
 * clients between them, `heaptap diff OLD NEW` must show the line marked LEAK in its first row,
 * with the function `client_named`, 1,024 bytes and one block for each new client. The names of
 * recent clients level off at 32, a connection's buffer goes with it, and an answer is freed at
 * once: none of their lines may grow.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BUCKETS = 1024, CONNECTIONS = 64, RECENT = 32, LINE_LIMIT = 4096, NAME_LIMIT = 56, HOURS = 238 };

struct client {
  struct client *next;
  char name[NAME_LIMIT];
  uint64_t hits;
  uint32_t hits_by_hour[HOURS]; /* the last ten days, less two hours that did not fit */
};
_Static_assert(sizeof(struct client) == 1024, "the promise at the head of this file");

struct connection {
  size_t used;
  char line[LINE_LIMIT];
};

static struct client *clients[BUCKETS];
static char *recent[RECENT];
static unsigned calls;

static struct client *client_named(const char *name) {
  uint32_t hash = 2166136261u;
  for (const char *c = name; *c; c++) hash = (hash ^ (unsigned char)*c) * 16777619u;
  struct client **place = &clients[hash % BUCKETS];
  for (; *place; place = &(*place)->next) {
    if (strcmp((*place)->name, name) == 0) return *place;
  }
  *place = calloc(1, sizeof(struct client)); /* LEAK */
  if (!*place) abort();
  strcpy((*place)->name, name);
  return *place;
}

static void remember(const char *name) {
  char **place = &recent[calls++ % RECENT];
  free(*place);
  *place = strdup(name);
}

/* The answer to a line, to be freed; NULL where there is no memory for one. */
static char *answer_to(const char *line) {
  char *answer = NULL;
  if (strncmp(line, "hit ", 4) == 0 && line[4] && strlen(line + 4) < NAME_LIMIT) {
    struct client *client = client_named(line + 4);
    client->hits_by_hour[time(NULL) / 3600 % HOURS]++;
    client->hits++;
    remember(client->name);
    return asprintf(&answer, "%llu\n", (unsigned long long)client->hits) < 0 ? NULL : answer;
  }
  if (strcmp(line, "recent") == 0) {
    size_t size;
    FILE *text = open_memstream(&answer, &size);
    for (unsigned i = 0; text && i < RECENT && i < calls; i++) {
      fprintf(text, "%s ", recent[(calls - 1 - i) % RECENT]);
    }
    if (text) fputc('\n', text), fclose(text);
    return answer;
  }
  return strdup("what?\n");
}

/* Answers the lines that have come in; 0 when the connection is to be closed. */
static int serve(int descriptor, struct connection *connection) {
  ssize_t count = read(descriptor, connection->line + connection->used,
                       LINE_LIMIT - connection->used);
  if (count <= 0) return 0;
  connection->used += (size_t)count;
  char *end;
  while ((end = memchr(connection->line, '\n', connection->used))) {
    *end = 0;
    char *answer = answer_to(connection->line);
    if (!answer || write(descriptor, answer, strlen(answer)) < 0) {
      free(answer);
      return 0;
    }
    free(answer);
    connection->used -= (size_t)(end + 1 - connection->line);
    memmove(connection->line, end + 1, connection->used);
  }
  return connection->used < LINE_LIMIT;
}

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons(argc > 1 ? (uint16_t)atoi(argv[1]) : 0),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 16)
      || getsockname(listener, (struct sockaddr *)&address, &length)) {
    perror("leaky-daemon");
    return 1;
  }
  printf("listening on %d\n", ntohs(address.sin_port));
  fflush(stdout);

  struct pollfd polled[1 + CONNECTIONS] = {{.fd = listener, .events = POLLIN}};
  struct connection *connections[1 + CONNECTIONS] = {0};
  nfds_t count = 1;
  for (;;) {
    /* A full table leaves callers in the queue. A signal ends the wait, and no more than that. */
    polled[0].events = count <= CONNECTIONS ? POLLIN : 0;
    if (poll(polled, count, -1) < 0) continue;
    for (nfds_t i = count - 1; i > 0; i--) {
      if (!polled[i].revents || serve(polled[i].fd, connections[i])) continue;
      /* In this order: who sees the connection end may count on its buffer being gone. */
      free(connections[i]);
      close(polled[i].fd);
      count--;
      polled[i] = polled[count];
      connections[i] = connections[count];
    }
    if (polled[0].revents & POLLIN) {
      int accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
      if (accepted < 0) continue;
      connections[count] = calloc(1, sizeof(struct connection));
      if (!connections[count]) abort();
      polled[count++] = (struct pollfd){.fd = accepted, .events = POLLIN};
    }
  }
}
