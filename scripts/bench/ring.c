// Peer of trials/ring.ts: a consumer in C of the same producer.
// Arguments: faults, p50 or p99; milliseconds.
#define _GNU_SOURCE
#include "ring.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { SLOTS = 4096, SLICE = 1 << 16, SAMPLES = 1 << 20 };

static struct ring_header *make_ring(void) {
  uint32_t records = SLOTS * 64, responses = SLOTS * 16;
  uint32_t length = RING_HEADER_BYTES + records + responses;
  int fd = memfd_create("ring", 0);
  if (fd == -1 || ftruncate(fd, length) == -1 || dup2(fd, RING_FD) == -1 ||
      dup2(eventfd(0, 0), DOORBELL) == -1 || dup2(eventfd(0, 0), KICK) == -1)
    abort();
  struct ring_header *ring =
      mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, RING_FD, 0);
  if (ring == MAP_FAILED)
    abort();
  ring->magic = RING_MAGIC;
  ring->version = RING_VERSION;
  ring->kind = RING_FAULTS;
  ring->record_bytes = 64;
  ring->record_count = ring->response_count = SLOTS;
  ring->records = RING_HEADER_BYTES;
  ring->responses = RING_HEADER_BYTES + records;
  ring->length = length;
  ring->source_bytes = KERNEL_RECORD;
  return ring;
}

static double *samples;
static int count;
static uint64_t expected;

// Takes what there is, answers it and gives the slots back.
static void drain(struct ring_header *ring, int latencies) {
  uint32_t tail = ring->tail;
  uint32_t end = __atomic_load_n(&ring->head, __ATOMIC_SEQ_CST);
  if (end - tail > 256)
    end = tail + 256;
  for (; tail != end; tail++) {
    struct ring_fault *fault = (struct ring_fault *)ring_record(ring, tail);
    if (fault->addr != expected++ << 12)
      abort();
    if (latencies && count < SAMPLES)
      samples[count++] = now_ns() - (double)fault->timestamp;
    if (!ring_respond(ring, fault->group_cookie, 0, fault->generation))
      abort();
  }
  if (ring_consume(ring, tail))
    ring_bell(KICK);
}

static void wait_for_faults(struct ring_header *ring) {
  while (ring_available(ring) == 0)
    if (ring_sleep(ring))
      wait_bell(DOORBELL);
}

static void faults(struct ring_header *ring, double milliseconds) {
  double start = now_ns(), before = start;
  uint64_t first = 0;
  int warm = 0;
  for (;;) {
    wait_for_faults(ring);
    drain(ring, 0);
    if (expected - first < SLICE)
      continue;
    double now = now_ns();
    if (count < SAMPLES)
      samples[count++] = (now - before) / (double)(expected - first);
    first = expected;
    before = now;
    if (!warm && now - start > milliseconds * 1e6) {
      warm = 1;
      count = 0;
    } else if (now - start > 2 * milliseconds * 1e6 && count >= MEASURE_LEAST) {
      return;
    }
  }
}

static void wakeups(struct ring_header *ring, double milliseconds) {
  for (double start = now_ns();
       now_ns() - start < 4 * milliseconds * 1e6 || count < 100;) {
    wait_for_faults(ring);
    drain(ring, 1);
  }
}

int main(int argc, char **argv) {
  if (argc != 3)
    return 1;
  int fast = strcmp(argv[1], "faults") == 0;
  double milliseconds = atof(argv[2]);
  struct ring_header *ring = make_ring();
  samples = malloc(SAMPLES * sizeof *samples);
  pid_t child = fork();
  if (child == -1 || !samples)
    return 1;
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (fast)
      produce(map_ring(RING_FD));
    produce_slowly(map_ring(RING_FD));
  }
  if (fast)
    faults(ring, milliseconds);
  else
    wakeups(ring, milliseconds);
  int status;
  if (waitpid(child, &status, WNOHANG) != 0)
    return 1;
  kill(child, SIGKILL);
  qsort(samples, count, sizeof *samples, compare_doubles);
  double at = strcmp(argv[1], "p99") == 0 ? 0.99 : 0.5;
  printf("{\"value\":%.4f}\n", samples[(int)(at * count)]);
}
