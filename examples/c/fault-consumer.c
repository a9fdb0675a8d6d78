// Takes page faults from a queue that a TypeScript program owns, and answers
// them: the rings are a memfd that both have mapped, so there is no call into
// the kernel for a fault, and none for its response while the pump is awake.
//
// Inherits three descriptors, from queue.share(): 3 the memfd, 4 the doorbell
// that rings for us, 5 the one that rings for the pump. Argument: how many
// faults to answer. Each is answered 'success' if its page number is even, else
// 'invalid'.
//
//   cc -O2 -I native -o fault-consumer examples/c/fault-consumer.c
#include "ring.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MEMFD = 3, DOORBELL = 4, KICK = 5 };
enum { SUCCESS = 0, INVALID = 1 };

static struct ring_header *map_ring(void) {
  struct stat status;
  if (fstat(MEMFD, &status) == -1)
    return NULL;
  void *ring = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE,
                    MAP_SHARED, MEMFD, 0);
  return ring == MAP_FAILED ? NULL : ring;
}

static void wait_for_doorbell(void) {
  struct pollfd doorbell = {DOORBELL, POLLIN, 0};
  uint64_t count;
  if (poll(&doorbell, 1, -1) == 1 &&
      read(DOORBELL, &count, sizeof count) != sizeof count)
    return;
}

static void kick(void) {
  uint64_t one = 1;
  if (write(KICK, &one, sizeof one) != sizeof one)
    perror("kick");
}

static void answer(struct ring_header *ring, const struct ring_fault *fault) {
  uint32_t code = fault->addr / 4096 % 2 == 0 ? SUCCESS : INVALID;
  printf("{\"address\":\"0x%" PRIx64 "\",\"cookie\":%" PRIu64
         ",\"ioasid\":%u,\"code\":%u}\n",
         fault->addr, fault->device_cookie, fault->ioasid, code);
  while (!ring_respond(ring, fault->group_cookie, code, fault->generation))
    if (ring_wake_pump(ring))
      kick();
}

int main(int argc, char **argv) {
  struct ring_header *ring = map_ring();
  if (argc != 2 || !ring || ring->magic != RING_MAGIC ||
      ring->version != RING_VERSION || ring->kind != RING_FAULTS) {
    fprintf(stderr, "no ring of faults on descriptor %d\n", MEMFD);
    return 1;
  }
  for (long left = atol(argv[1]); left > 0;) {
    uint32_t head = __atomic_load_n(&ring->head, __ATOMIC_SEQ_CST);
    uint32_t tail = ring->tail;
    if (tail == head) {
      if (ring->error)
        return 2;
      if (ring_sleep(ring))
        wait_for_doorbell();
      continue;
    }
    for (; tail != head && left > 0; tail++) {
      const struct ring_fault *fault = (void *)ring_record(ring, tail);
      // One answer for a group, with its last fault: the pages of mock devices
      // are groups of their own.
      answer(ring, fault);
      left--;
    }
    if (ring_consume(ring, tail) | ring_wake_pump(ring))
      kick();
  }
  return 0;
}
