// Peer of trials/ioctl.ts: the same system call in a C loop.
// Arguments: request, threads (1 or 2), milliseconds.
#include "measure.h"

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

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

int main(int argc, char **argv) {
  struct work work = {.argument = {24, 1, 0x1000, 0x1000}};
  if (argc != 4 || (work.fd = eventfd(0, EFD_CLOEXEC)) < 0)
    return 1;
  have_threads(atoi(argv[2]));
  work.request = strtoul(argv[1], NULL, 0);
  double value = measure(atof(argv[3]), CALLS, batch, &work);
  long long result = call(&work);
  if (result != 0 && work.sum % result != 0)
    return 1;
  report(value, result);
}
