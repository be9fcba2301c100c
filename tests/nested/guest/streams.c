/*
 * streams.c - both directions of one connection at once, with every word checked, for
 * the Linux guests of tests/nested (AF_VSOCK) and for their host (unix sockets).
 *
 *   streams vsock-connect CID PORT MIB     in the guest, to a port of the host's
 *   streams vsock-listen PORT MIB          in the guest, for one connection
 *   streams unix-listen PATH MIB           on the host: PATH_PORT of --vsock
 *   streams unix-connect PATH PORT MIB     on the host: says CONNECT PORT first
 *
 * Sends MIB MiB and receives as much: words of 8 bytes that count up, mixed, from one
 * start on the guest's side and another on the host's. Exit status 0: every word came,
 * in order, and then the end; 1: not so, said in one line.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHUNK = 64 * 1024 };
static const uint64_t GUEST = 1ULL << 40, HOST = 2ULL << 40;

static void fail(const char *what, uint64_t where) {
  fprintf(stderr, "streams: %s at byte %llu (errno: %s)\n", what, (unsigned long long)where, strerror(errno));
  exit(1);
}

static uint64_t mixed(uint64_t n) {
  n *= 0x9e3779b97f4a7c15ULL;
  return n ^ (n >> 29);
}

static void send_all(int to, uint64_t start, uint64_t bytes) {
  static uint64_t words[CHUNK / 8];
  for (uint64_t sent = 0; sent < bytes; sent += CHUNK) {
    for (int i = 0; i < CHUNK / 8; i++) words[i] = mixed(start + sent / 8 + i);
    for (size_t at = 0; at < CHUNK;) {
      ssize_t n = write(to, (char *)words + at, CHUNK - at);
      if (n <= 0) fail("cannot send", sent + at);
      at += n;
    }
  }
  if (shutdown(to, SHUT_WR) != 0) fail("cannot end", bytes);
}

static void receive_all(int from, uint64_t start, uint64_t bytes) {
  static uint64_t words[CHUNK / 8];
  size_t have = 0;
  uint64_t at = 0;
  for (;;) {
    ssize_t n = read(from, (char *)words + have, CHUNK - have);
    if (n < 0) fail("cannot receive", at);
    if (n == 0) break;
    have += n;
    size_t whole = have / 8;
    for (size_t i = 0; i < whole; i++, at += 8)
      if (words[i] != mixed(start + at / 8)) fail("wrong data", at);
    memmove(words, words + whole, have - whole * 8);
    have -= whole * 8;
  }
  if (at != bytes || have) fail("ended", at);
}

static int both_ways(int connection, uint64_t mine, uint64_t theirs, uint64_t bytes) {
  int status = 0;
  pid_t child = fork();
  if (child < 0) fail("fork", 0);
  if (child == 0) {
    send_all(connection, mine, bytes);
    exit(0);
  }
  receive_all(connection, theirs, bytes);
  waitpid(child, &status, 0);
  if (status != 0) return 1;
  printf("streams: %llu MiB each way, every word as sent\n", (unsigned long long)(bytes >> 20));
  return 0;
}

static int one_of(int listener) {
  if (listen(listener, 1) != 0) fail("cannot listen", 0);
  int connection = accept(listener, NULL, NULL);
  if (connection < 0) fail("cannot accept", 0);
  close(listener);
  return connection;
}

static struct sockaddr_un unix_at(const char *path) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof to.sun_path) fail("the path is too long", 0);
  strcpy(to.sun_path, path);
  return to;
}

int main(int count, char **words) {
  const char *what = count > 1 ? words[1] : "";
  signal(SIGPIPE, SIG_IGN);
  setvbuf(stdout, NULL, _IOLBF, 0);
  uint64_t bytes = count > 2 ? (uint64_t)atoll(words[count - 1]) << 20 : 0;
  if (!strcmp(what, "vsock-connect") && count == 5) {
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
    struct sockaddr_vm to = {.svm_family = AF_VSOCK, .svm_cid = atoi(words[2]), .svm_port = atoi(words[3])};
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) fail("cannot connect", 0);
    return both_ways(fd, GUEST, HOST, bytes);
  }
  if (!strcmp(what, "vsock-listen") && count == 4) {
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
    struct sockaddr_vm me = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = atoi(words[2])};
    if (bind(fd, (struct sockaddr *)&me, sizeof me) != 0) fail("cannot bind", 0);
    return both_ways(one_of(fd), GUEST, HOST, bytes);
  }
  if (!strcmp(what, "unix-listen") && count == 4) {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un me = unix_at(words[2]);
    if (bind(fd, (struct sockaddr *)&me, sizeof me) != 0) fail("cannot bind", 0);
    return both_ways(one_of(fd), HOST, GUEST, bytes);
  }
  if (!strcmp(what, "unix-connect") && count == 5) {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un to = unix_at(words[2]);
    char line[64];
    size_t got = 0;
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) fail("cannot connect", 0);
    if (dprintf(fd, "CONNECT %s\n", words[3]) < 0) fail("cannot ask", 0);
    while (got < sizeof line - 1 && read(fd, line + got, 1) == 1 && line[got] != '\n') got++;
    if (strncmp(line, "OK ", 3) != 0) fail("there was no OK", 0);
    return both_ways(fd, HOST, GUEST, bytes);
  }
  fprintf(stderr, "streams: vsock-connect CID PORT MIB | vsock-listen PORT MIB | unix-listen PATH MIB | unix-connect PATH PORT MIB\n");
  return 2;
}
