/*
 * blocks.c - block tests with checksums, for the Linux guests of tests/nested and
 * for the host that looks at their disks afterwards.
 *
 *   blocks check FILE MIB OPERATIONS DEPTH SEED
 *       Writes, reads, and flushes of 4 to 64 KiB at random places of the first MIB MiB,
 *       DEPTH at once (io_submit, O_DIRECT). What is read has to be what was written
 *       last. At the end the device's caches are dropped and all of it is read again.
 *   blocks inflight MIB SECONDS SEED FILE...
 *       Writes all of the first MIB MiB of each, waits until they were acknowledged, then
 *       goes on writing with 128 requests under way on each, and powers the machine off
 *       in the middle of it. Does not come back.
 *   blocks look FILE MIB SEED
 *       Each block is whole, in its place, and was written at least once.
 *
 * Each block of 4 KiB tells its place, how often it was written, and a sum of both
 * and of its words. Exit status 0: all right; 1: something is not, said in one line.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCK = 4096, WORDS = BLOCK / 8, MOST = 16, PER_MIB = (1 << 20) / BLOCK, UNDER_WAY = 128 };

static void fail(const char *what, const char *of, uint64_t where) {
  fprintf(stderr, "blocks: %s: %s at block %llu (errno: %s)\n", of, what, (unsigned long long)where, strerror(errno));
  exit(1);
}

/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators", 2016. */
static uint64_t next(uint64_t *state) {
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * 0x2545f4914f6cdd1dULL;
}

static void fill(uint64_t *block, uint64_t index, uint64_t version, uint64_t seed) {
  uint64_t state = (index << 24) ^ (version << 1) ^ (seed << 48) ^ 0x9e3779b97f4a7c15ULL;
  block[0] = index;
  block[1] = version;
  for (int i = 2; i < WORDS; i++) block[i] = next(&state);
}

/* The version of a block, if it is what fill() makes for this place; else 0. */
static uint64_t version_of(const uint64_t *block, uint64_t index, uint64_t seed) {
  uint64_t want[WORDS];
  if (block[0] != index || block[1] == 0) return 0;
  fill(want, index, block[1], seed);
  return memcmp(want, block, BLOCK) == 0 ? block[1] : 0;
}

static int open_direct(const char *path, int flags) {
  int fd = open(path, flags | O_DIRECT | O_CLOEXEC);
  if (fd < 0) fail("cannot be opened", path, 0);
  return fd;
}

static void *buffers(size_t bytes) {
  void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) fail("no memory", "buffers", 0);
  return at;
}

struct request {
  struct iocb control;
  uint64_t *data;
  uint64_t first, count;
  int under_way;
};

static aio_context_t context(unsigned depth) {
  aio_context_t made = 0;
  if (syscall(SYS_io_setup, depth, &made) != 0) fail("io_setup failed", "", depth);
  return made;
}

static void submit(aio_context_t to, struct request *request, int fd, int code, uint64_t tag) {
  struct iocb *list[1] = {&request->control};
  memset(&request->control, 0, sizeof request->control);
  request->control.aio_data = tag;
  request->control.aio_lio_opcode = code;
  request->control.aio_fildes = fd;
  request->control.aio_buf = (uintptr_t)request->data;
  request->control.aio_nbytes = request->count * BLOCK;
  request->control.aio_offset = request->first * BLOCK;
  request->under_way = 1;
  if (syscall(SYS_io_submit, to, 1, list) != 1) fail("io_submit failed", "", request->first);
}

/* Waits for one, which has to have succeeded; which one it was. */
static uint64_t reap(aio_context_t from, struct request *requests, const char *path) {
  struct io_event event;
  long got;
  do got = syscall(SYS_io_getevents, from, 1, 1, &event, NULL);
  while (got < 0 && errno == EINTR);
  if (got != 1) fail("io_getevents failed", path, 0);
  struct request *done = &requests[event.data];
  if (event.res != (int64_t)done->count * BLOCK) {
    errno = event.res < 0 ? (int)-event.res : 0;
    fail("request failed", path, done->first);
  }
  done->under_way = 0;
  return event.data;
}

static int check(const char *path, uint64_t mib, uint64_t operations, unsigned depth, uint64_t seed) {
  uint64_t blocks = mib * PER_MIB, state = seed * 2654435761u + 1, counts[3] = {0, 0, 0};
  int fd = open_direct(path, O_RDWR);
  uint64_t *versions = calloc(blocks, sizeof *versions);
  char *busy = calloc(blocks, 1);
  struct request *requests = calloc(depth, sizeof *requests);
  uint64_t *memory = buffers((size_t)depth * MOST * BLOCK);
  aio_context_t aio = context(depth);
  unsigned under_way = 0;
  if (!versions || !busy || !requests) fail("no memory", path, 0);
  for (unsigned i = 0; i < depth; i++) requests[i].data = memory + (size_t)i * MOST * WORDS;
  for (uint64_t done = 0; done < operations || under_way > 0;) {
    while (done < operations && under_way < depth) {
      unsigned slot = 0;
      while (requests[slot].under_way) slot++;
      struct request *request = &requests[slot];
      request->count = 1 + next(&state) % MOST;
      request->first = next(&state) % (blocks - request->count + 1);
      /* One request at a time for each block: else nobody could say what is right. */
      if (memchr(busy + request->first, 1, request->count)) break;
      int write = next(&state) % 2;
      memset(busy + request->first, 1, request->count);
      for (uint64_t i = 0; write && i < request->count; i++)
        fill(request->data + i * WORDS, request->first + i, ++versions[request->first + i], seed);
      submit(aio, request, fd, write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD, slot);
      counts[write]++, done++, under_way++;
      if (next(&state) % 64 == 0) {
        if (fdatasync(fd) != 0) fail("flush failed", path, 0);
        counts[2]++;
      }
    }
    if (under_way == 0) continue;
    struct request *request = &requests[reap(aio, requests, path)];
    under_way--;
    memset(busy + request->first, 0, request->count);
    for (uint64_t i = 0; request->control.aio_lio_opcode == IOCB_CMD_PREAD && i < request->count; i++) {
      uint64_t at = request->first + i;
      if (versions[at] && version_of(request->data + i * WORDS, at, seed) != versions[at])
        fail("is not what was written", path, at);
    }
  }
  if (fsync(fd) != 0) fail("flush failed", path, 0);
  ioctl(fd, BLKFLSBUF, 0);
  for (uint64_t at = 0; at < blocks; at++) {
    if (!versions[at]) continue;
    if (pread(fd, memory, BLOCK, at * BLOCK) != BLOCK) fail("cannot be read again", path, at);
    if (version_of(memory, at, seed) != versions[at]) fail("is not what was written, at the end", path, at);
  }
  printf("blocks: %llu writes, %llu reads, %llu flushes: all as written\n", (unsigned long long)counts[1],
         (unsigned long long)counts[0], (unsigned long long)counts[2]);
  return 0;
}

/* One disk's part of `inflight`: tells the pipe when all was written once, and goes on. */
static void keep_writing(const char *path, uint64_t mib, uint64_t seed, int tell) {
  uint64_t blocks = mib * PER_MIB, state = seed + 1, at = 0;
  int fd = open_direct(path, O_WRONLY);
  static struct request requests[UNDER_WAY];
  uint64_t *memory = buffers((size_t)UNDER_WAY * BLOCK);
  uint64_t *versions = calloc(blocks, sizeof *versions);
  aio_context_t aio = context(UNDER_WAY);
  if (!versions) fail("no memory", path, 0);
  for (unsigned i = 0; i < UNDER_WAY; i++) requests[i].data = memory + (size_t)i * WORDS;
  uint64_t unacknowledged = blocks;
  char first_round[UNDER_WAY] = {0};
  for (unsigned under_way = 0;;) {
    unsigned slot = under_way < UNDER_WAY ? under_way++ : reap(aio, requests, path);
    struct request *request = &requests[slot];
    if (first_round[slot] && --unacknowledged == 0 && write(tell, "w", 1) != 1) fail("pipe", path, at);
    first_round[slot] = at < blocks;
    request->first = at < blocks ? at : next(&state) % blocks;
    request->count = 1;
    /* Two under way for one block may be carried out in any order: both are whole. */
    fill(request->data, request->first, ++versions[request->first], seed);
    submit(aio, request, fd, IOCB_CMD_PWRITE, slot);
    at++;
  }
}

static int inflight(uint64_t mib, unsigned seconds, uint64_t seed, char **paths, int count) {
  int ends[2];
  char byte;
  if (pipe(ends) != 0) fail("pipe", "", 0);
  for (int i = 0; i < count; i++) {
    pid_t child = fork();
    if (child < 0) fail("fork", paths[i], 0);
    if (child == 0) keep_writing(paths[i], mib, seed, ends[1]);
  }
  close(ends[1]);
  for (int i = 0; i < count; i++)
    if (read(ends[0], &byte, 1) != 1) fail("a writer has ended", paths[i], 0);
  printf("blocks: %d requests under way\n", count * UNDER_WAY);
  fflush(stdout);
  sleep(seconds);
  reboot(RB_POWER_OFF);
  fail("cannot power off", "", 0);
  return 1;
}

static int look(const char *path, uint64_t mib, uint64_t seed) {
  uint64_t block[WORDS], again = 0;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail("cannot be opened", path, 0);
  for (uint64_t at = 0; at < mib * PER_MIB; at++) {
    if (pread(fd, block, BLOCK, at * BLOCK) != BLOCK) fail("cannot be read", path, at);
    uint64_t version = version_of(block, at, seed);
    if (version == 0) fail("is not what was written", path, at);
    again += version > 1;
  }
  printf("blocks: %s: all there, %llu written again\n", path, (unsigned long long)again);
  return 0;
}

int main(int count, char **words) {
  const char *what = count > 1 ? words[1] : "";
  if (!strcmp(what, "check") && count == 7)
    return check(words[2], atoll(words[3]), atoll(words[4]), atoi(words[5]), atoll(words[6]));
  if (!strcmp(what, "inflight") && count > 5)
    return inflight(atoll(words[2]), atoi(words[3]), atoll(words[4]), words + 5, count - 5);
  if (!strcmp(what, "look") && count == 5) return look(words[2], atoll(words[3]), atoll(words[4]));
  fprintf(stderr, "blocks: check FILE MIB OPERATIONS DEPTH SEED | inflight MIB SECONDS SEED FILE... | look FILE MIB SEED\n");
  return 2;
}
