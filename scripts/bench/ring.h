// The producer of the ring figures: the same for every consumer.
#pragma once

#include "../../native/ring.h"
#include "measure.h"

#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// Where a producer's ring and eventfds are. On a pipe, records go to PIPE.
enum { RING_FD = 3, DOORBELL = 4, KICK = 5, PIPE = 1 };
// Records that are published together, as a pump does those of one read(2).
enum { BATCH = 32, FAULT_LAST_PAGE = 2, KERNEL_RECORD = 40 };
// Microseconds for which a consumer that is to be woken has slept.
enum { ASLEEP = 200 };

static inline void fill_fault(struct ring_fault *fault, uint64_t number) {
  memset(fault, 0, sizeof *fault);
  fault->flags = FAULT_LAST_PAGE;
  fault->dev_id = 2;
  fault->perm = 1;
  fault->addr = number << 12;
  fault->group_cookie = (uint32_t)number;
  fault->device_cookie = 7;
  fault->ioasid = 1;
  fault->generation = (uint32_t)number;
}

static inline void ring_bell(int fd) {
  uint64_t one = 1;
  if (write(fd, &one, sizeof one) != sizeof one)
    abort();
}

static inline void wait_bell(int fd) {
  uint64_t count;
  struct pollfd entry = {.fd = fd, .events = POLLIN};
  while (poll(&entry, 1, -1) != 1)
    ;
  if (read(fd, &count, sizeof count) != sizeof count)
    abort();
}

static inline struct ring_header *map_ring(int fd) {
  struct ring_header *ring =
      mmap(NULL, RING_HEADER_BYTES, PROT_READ, MAP_SHARED, fd, 0);
  if (ring == MAP_FAILED)
    abort();
  uint32_t length = ring->length;
  munmap(ring, RING_HEADER_BYTES);
  ring = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (ring == MAP_FAILED || ring->magic != RING_MAGIC)
    abort();
  return ring;
}

static inline uint32_t ring_free(struct ring_header *ring) {
  return ring->record_count -
         (ring->head - __atomic_load_n(&ring->tail, __ATOMIC_SEQ_CST));
}

// All responses are taken; each must be to the fault that is next.
static inline void take_responses(struct ring_header *ring) {
  uint32_t tail = ring->response_tail;
  uint32_t head = __atomic_load_n(&ring->response_head, __ATOMIC_SEQ_CST);
  for (; tail != head; tail++) {
    struct ring_response *response = ring_response_at(ring, tail);
    if (response->group_cookie != tail || response->generation != tail ||
        response->code != 0)
      abort();
  }
  __atomic_store_n(&ring->response_tail, tail, __ATOMIC_SEQ_CST);
}

static inline void wait_for_room(struct ring_header *ring) {
  __atomic_store_n(&ring->pump_waiting, RING_PUMP_WAITS_FOR_ROOM,
                   __ATOMIC_SEQ_CST);
  if (ring_free(ring) == 0 &&
      __atomic_load_n(&ring->response_head, __ATOMIC_SEQ_CST) ==
          ring->response_tail)
    wait_bell(KICK);
  __atomic_store_n(&ring->pump_waiting, 0, __ATOMIC_SEQ_CST);
}

// Faults without end, as fast as they are taken.
static inline void produce(struct ring_header *ring) {
  for (uint64_t number = ring->head;;) {
    take_responses(ring);
    uint32_t room = ring_free(ring);
    if (room == 0) {
      wait_for_room(ring);
      continue;
    }
    double now = now_ns();
    for (uint32_t i = 0; i < room && i < BATCH; i++, number++) {
      struct ring_fault *fault =
          (struct ring_fault *)ring_record(ring, (uint32_t)number);
      fill_fault(fault, number);
      fault->timestamp = (uint64_t)now;
    }
    if (ring_publish(ring, (uint32_t)number))
      ring_bell(DOORBELL);
  }
}

// One fault at a time, to a consumer that has slept for a while.
static inline void produce_slowly(struct ring_header *ring) {
  for (uint64_t number = ring->head;; number++) {
    while (!__atomic_load_n(&ring->consumer_waiting, __ATOMIC_SEQ_CST))
      usleep(10);
    usleep(ASLEEP);
    take_responses(ring);
    struct ring_fault *fault =
        (struct ring_fault *)ring_record(ring, (uint32_t)number);
    fill_fault(fault, number);
    fault->timestamp = (uint64_t)now_ns();
    if (ring_publish(ring, (uint32_t)number + 1))
      ring_bell(DOORBELL);
  }
}

// The kernel's records, into a pipe.
static inline void produce_pipe(void) {
  uint8_t bytes[BATCH * KERNEL_RECORD];
  for (uint64_t number = 0;;) {
    for (int i = 0; i < BATCH; i++, number++) {
      struct ring_fault fault;
      fill_fault(&fault, number);
      memcpy(bytes + i * KERNEL_RECORD, &fault, KERNEL_RECORD);
    }
    for (size_t done = 0; done < sizeof bytes;) {
      ssize_t written = write(PIPE, bytes + done, sizeof bytes - done);
      if (written <= 0)
        return;
      done += (size_t)written;
    }
  }
}
