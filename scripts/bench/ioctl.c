// Peer of trials/ioctl.ts: the same system call in a C loop.
// Arguments: request, threads (1 or 2), milliseconds.
//
// Linux counts references to a file only in processes that have more than one
// thread, as every one of Node's has: there each system call on a descriptor
// costs two atomic operations more, whoever makes it. The second thread sleeps.
#include "measure.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { CALLS = 512 };

struct work {
  int fd;
  unsigned long request;
  // struct iommu_ioas_unmap
  struct {
    uint32_t size, ioas_id;
    uint64_t iova, length;
  } argument;
  long long sum;
};

static int call(struct work *work) {
  int result = ioctl(work->fd, work->request, &work->argument);
  return result == -1 ? -errno : result;
}

static void batch(void *context) {
  struct work *work = context;
  for (int i = 0; i < CALLS; i++)
    work->sum += call(work);
}

static void *sleeper(void *context) {
  for (;;)
    pause();
  return context;
}

int main(int argc, char **argv) {
  struct work work = {.argument = {24, 1, 0x1000, 0x1000}};
  pthread_t thread;
  if (argc != 4 || (work.fd = eventfd(0, EFD_CLOEXEC)) < 0 ||
      (atoi(argv[2]) == 2 && pthread_create(&thread, NULL, sleeper, NULL)))
    return 1;
  work.request = strtoul(argv[1], NULL, 0);
  double value = measure(atof(argv[3]), CALLS, batch, &work);
  long long result = call(&work);
  if (result != 0 && work.sum % result != 0)
    return 1;
  report(value, result);
}
