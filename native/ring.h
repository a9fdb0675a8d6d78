/*
 * A ring in shared memory: the pump (native/pump.cc, or another that keeps to
 * this) publishes records, one consumer takes them and writes responses. Plain
 * C, for programs in other languages; lib/rings/layout.ts says the same, and
 * lib/rings/ring.ts describes the doorbells.
 *
 * All fields are little-endian. Indices count on from 0 to 2^32 - 1 and then
 * from 0 again; a record lies in slot `index & (record_count - 1)`.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define RING_MAGIC 0x474e4952u /* 'RING' */
#define RING_VERSION 1u
#define RING_FAULTS 1u
#define RING_EVENTS 2u
#define RING_HEADER_BYTES 4096u

/* Values of pump_waiting: until there are responses; or slots as well. */
#define RING_PUMP_WAITS 1u
#define RING_PUMP_WAITS_FOR_ROOM 2u

struct ring_header {
  uint32_t magic, version;
  uint32_t kind;         /* RING_FAULTS or RING_EVENTS */
  uint32_t record_bytes; /* of a slot */
  uint32_t record_count; /* a power of two */
  uint32_t response_count;
  uint32_t records;      /* where they begin, in bytes */
  uint32_t responses;    /* where they begin, in bytes */
  uint32_t length;       /* of the whole mapping */
  uint32_t source_bytes; /* of the largest record of the kernel's file */
  uint32_t identity[2];  /* random: another ring has another */
  uint32_t unused0[4];
  /* The pump's. */
  uint32_t head;    /* records published */
  uint32_t dropped; /* always 0 */
  uint32_t error;   /* 0 while the pump runs; else the errno it ended for */
  uint32_t wakeups; /* doorbells rung */
  uint32_t unused1[12];
  /* The consumer's. */
  uint32_t tail;    /* records consumed */
  uint32_t partial; /* generation of a group taken in part; 0: of none */
  uint32_t unused2[14];
  uint32_t consumer_waiting;
  uint32_t unused3[15];
  uint32_t response_head; /* responses written, by the consumer */
  uint32_t unused4[15];
  uint32_t response_tail; /* responses taken, by the pump */
  uint32_t refused;       /* responses that nobody waited for */
  uint32_t unused5[14];
  uint32_t pump_waiting;
  uint32_t unused6[15];
};

/* A fault: the kernel's struct iommu_hwpt_pgfault, and whose it is. */
struct ring_fault {
  uint32_t flags, dev_id, pasid, grpid, perm, reserved;
  uint64_t addr;
  uint32_t length;
  uint32_t group_cookie;  /* the kernel's `cookie` */
  uint64_t device_cookie; /* the user's name for the device */
  uint32_t ioasid;
  uint32_t generation; /* tells groups of the same group_cookie apart */
  uint64_t timestamp;  /* CLOCK_MONOTONIC, nanoseconds */
};

struct ring_response {
  uint32_t group_cookie;
  uint32_t code; /* enum iommufd_page_response_code */
  uint32_t generation;
  uint32_t unused;
};

static inline uint8_t *ring_record(struct ring_header *ring, uint32_t index) {
  return (uint8_t *)ring + ring->records +
         (uint64_t)(index & (ring->record_count - 1)) * ring->record_bytes;
}

static inline struct ring_response *ring_response_at(struct ring_header *ring,
                                                     uint32_t index) {
  return (struct ring_response *)((uint8_t *)ring + ring->responses) +
         (index & (ring->response_count - 1));
}

/* Publishes records up to `head`. True: ring the consumer's doorbell. */
static inline bool ring_publish(struct ring_header *ring, uint32_t head) {
  __atomic_store_n(&ring->head, head, __ATOMIC_SEQ_CST);
  if (!__atomic_exchange_n(&ring->consumer_waiting, 0, __ATOMIC_SEQ_CST))
    return false;
  ring->wakeups++;
  return true;
}

/* Records that may be consumed. */
static inline uint32_t ring_available(struct ring_header *ring) {
  return __atomic_load_n(&ring->head, __ATOMIC_SEQ_CST) - ring->tail;
}

/* After responses. True: ring the pump's doorbell. */
static inline bool ring_wake_pump(struct ring_header *ring) {
  return __atomic_exchange_n(&ring->pump_waiting, 0, __ATOMIC_SEQ_CST) != 0;
}

/* Gives slots back up to `tail`. True: half of all are free, and the pump
   sleeps for want of them: ring its doorbell. */
static inline bool ring_consume(struct ring_header *ring, uint32_t tail) {
  __atomic_store_n(&ring->tail, tail, __ATOMIC_SEQ_CST);
  return __atomic_load_n(&ring->pump_waiting, __ATOMIC_SEQ_CST) ==
             RING_PUMP_WAITS_FOR_ROOM &&
         ring_available(ring) <= ring->record_count / 2 && ring_wake_pump(ring);
}

/* The consumer is about to sleep. False: it must not. */
static inline bool ring_sleep(struct ring_header *ring) {
  __atomic_store_n(&ring->consumer_waiting, 1, __ATOMIC_SEQ_CST);
  if (ring_available(ring) == 0 &&
      __atomic_load_n(&ring->error, __ATOMIC_SEQ_CST) == 0)
    return true;
  __atomic_store_n(&ring->consumer_waiting, 0, __ATOMIC_SEQ_CST);
  return false;
}

/* Writes a response. False: no room until the pump has taken some. */
static inline bool ring_respond(struct ring_header *ring, uint32_t group_cookie,
                                uint32_t code, uint32_t generation) {
  uint32_t head = ring->response_head;
  if (head - __atomic_load_n(&ring->response_tail, __ATOMIC_SEQ_CST) >=
      ring->response_count)
    return false;
  struct ring_response *response = ring_response_at(ring, head);
  response->group_cookie = group_cookie;
  response->code = code;
  response->generation = generation;
  __atomic_store_n(&ring->response_head, head + 1, __ATOMIC_SEQ_CST);
  return true;
}
