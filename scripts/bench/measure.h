// What trials/measure.ts does, for the C peers.
#pragma once

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { MEASURE_LEAST = 3, MEASURE_MOST = 1 << 20 };

static inline double now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

static int compare_doubles(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

// The median of the nanoseconds that a batch takes, divided by `calls`.
// Batches run for `milliseconds`, after warming up as long: no JIT here.
// `prepare` runs before each, untimed.
static inline double measure_prepared(double milliseconds, int calls,
                                      void (*prepare)(void *),
                                      void (*batch)(void *), void *context) {
  double *samples = malloc(MEASURE_MOST * sizeof *samples);
  if (!samples)
    abort();
  double start = now_ns(), half = milliseconds * 1e6;
  int count = 0, warm = 0;
  for (;;) {
    prepare(context);
    double before = now_ns();
    batch(context);
    double after = now_ns();
    samples[count++] = (after - before) / calls;
    if (count < MEASURE_LEAST)
      continue;
    if (!warm && (after - start >= half || count == MEASURE_MOST)) {
      warm = 1;
      count = 0;
    } else if (warm && (after - start >= 2 * half || count == MEASURE_MOST)) {
      break;
    }
  }
  qsort(samples, count, sizeof *samples, compare_doubles);
  double median = samples[count / 2];
  free(samples);
  return median;
}

static inline void prepare_nothing(void *context) { (void)context; }

static inline double measure(double milliseconds, int calls,
                             void (*batch)(void *), void *context) {
  return measure_prepared(milliseconds, calls, prepare_nothing, batch, context);
}

static void *sleep_for_ever(void *context) {
  for (;;)
    pause();
  return context;
}

// Linux counts references to a file only in processes that have more than one
// thread, as every one of Node's has: there each system call on a descriptor
// costs two atomic operations more, whoever makes it. With a second thread, C
// pays them too; it sleeps.
static inline void have_threads(int count) {
  pthread_t thread;
  for (; count > 1; count--)
    if (pthread_create(&thread, NULL, sleep_for_ever, NULL))
      abort();
}

static inline void report(double value, long long check) {
  printf("{\"value\":%.4f,\"check\":\"%lld\"}\n", value, check);
}
