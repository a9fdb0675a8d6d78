// What trials/measure.ts does, for the C peers.
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

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
static inline double measure(double milliseconds, int calls,
                             void (*batch)(void *), void *context) {
  double *samples = malloc(MEASURE_MOST * sizeof *samples);
  if (!samples)
    abort();
  double start = now_ns(), half = milliseconds * 1e6;
  int count = 0, warm = 0;
  for (;;) {
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

static inline void report(double value, long long check) {
  printf("{\"value\":%.4f,\"check\":\"%lld\"}\n", value, check);
}
