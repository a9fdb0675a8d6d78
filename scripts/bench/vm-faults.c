// Peer of trials/vm-faults.ts, in the VM: the same faults, by read(2) and
// write(2). Arguments: milliseconds.
#include "measure.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <unistd.h>

// The system's headers may be older than iommufd: its numbers and structs.
enum { BURST = 128, PAGE = 4096, FIRST_PAGE = 0x1000 };
#define IOMMU_IOAS_ALLOC 0x3b81ul
#define IOMMU_HWPT_ALLOC 0x3b89ul
#define IOMMU_FAULT_QUEUE_ALLOC 0x3b8eul
#define IOMMU_TEST_CMD 0x3ba0ul
enum { OP_MOCK_DOMAIN = 2, OP_MOCK_DOMAIN_REPLACE = 10, OP_TRIGGER_IOPF = 15 };
enum { FAULT_ID_VALID = 4, PERM_READ = 1, SUCCESS = 0 };

struct ioas_alloc {
  uint32_t size, flags, out_ioas_id;
};
struct fault_alloc {
  uint32_t size, flags, out_fault_id, out_fault_fd;
};
struct hwpt_alloc {
  uint32_t size, flags, dev_id, pt_id, out_hwpt_id, reserved, data_type,
      data_len;
  uint64_t data_uptr;
  uint32_t fault_id, reserved2;
};
struct test_cmd {
  uint32_t size, op, id, reserved;
  union {
    struct {
      uint32_t out_stdev_id, out_hwpt_id, out_idev_id;
    } mock_domain;
    struct {
      uint32_t pt_id;
    } mock_domain_replace;
    struct {
      uint32_t dev_id, pasid, grpid, perm;
      uint64_t addr;
    } trigger_iopf;
    uint8_t bytes[56];
  };
};
struct pgfault {
  uint32_t flags, dev_id, pasid, grpid, perm, reserved;
  uint64_t addr;
  uint32_t length, cookie;
};
struct page_response {
  uint32_t cookie, code;
};

struct work {
  int fd, faults;
  uint32_t device;
  long long pages;
  struct test_cmd calls[BURST];
};

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void trigger(void *context) {
  struct work *work = context;
  for (int i = 0; i < BURST; i++)
    if (ioctl(work->fd, IOMMU_TEST_CMD, &work->calls[i]))
      fail("trigger");
}

// Until there are none: as whoever does not know how many there are.
static void answer(void *context) {
  struct work *work = context;
  struct pgfault faults[BURST];
  struct page_response responses[BURST];
  uint64_t expected = FIRST_PAGE;
  ssize_t length;
  work->pages = 0;
  while ((length = read(work->faults, faults, sizeof faults)) > 0) {
    int count = (int)(length / sizeof *faults);
    for (int i = 0; i < count; i++) {
      uint64_t page = faults[i].addr >> 12;
      if (page != expected++ || faults[i].dev_id != work->device)
        fail("not the fault that was raised");
      work->pages += (long long)page;
      responses[i] = (struct page_response){faults[i].cookie, SUCCESS};
    }
    ssize_t bytes = count * (ssize_t)sizeof *responses;
    if (write(work->faults, responses, bytes) != bytes)
      fail("write");
  }
  if (length < 0 || expected != FIRST_PAGE + BURST)
    fail("read");
}

static void open_mock(struct work *work) {
  struct ioas_alloc ioas = {.size = sizeof ioas};
  struct fault_alloc queue = {.size = sizeof queue};
  if (ioctl(work->fd, IOMMU_IOAS_ALLOC, &ioas) ||
      ioctl(work->fd, IOMMU_FAULT_QUEUE_ALLOC, &queue))
    fail("alloc");
  struct test_cmd mock = {
      .size = sizeof mock, .op = OP_MOCK_DOMAIN, .id = ioas.out_ioas_id};
  if (ioctl(work->fd, IOMMU_TEST_CMD, &mock))
    fail("mock device");
  work->device = mock.mock_domain.out_idev_id;
  struct hwpt_alloc table = {.size = sizeof table,
                             .flags = FAULT_ID_VALID,
                             .dev_id = work->device,
                             .pt_id = ioas.out_ioas_id,
                             .fault_id = queue.out_fault_id};
  if (ioctl(work->fd, IOMMU_HWPT_ALLOC, &table))
    fail("page table");
  struct test_cmd attach = {.size = sizeof attach,
                            .op = OP_MOCK_DOMAIN_REPLACE,
                            .id = mock.mock_domain.out_stdev_id,
                            .mock_domain_replace = {table.out_hwpt_id}};
  if (ioctl(work->fd, IOMMU_TEST_CMD, &attach))
    fail("attach");
  work->faults = (int)queue.out_fault_fd;
}

int main(int argc, char **argv) {
  static struct work work;
  work.fd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
  if (argc != 2 || work.fd < 0)
    fail("open");
  open_mock(&work);
  for (int i = 0; i < BURST; i++)
    work.calls[i] = (struct test_cmd){
        .size = sizeof work.calls[i],
        .op = OP_TRIGGER_IOPF,
        .trigger_iopf = {work.device, 0, (uint32_t)i, PERM_READ,
                         (FIRST_PAGE + (uint64_t)i) * PAGE}};
  double value = measure_prepared(atof(argv[1]), BURST, trigger, answer, &work);
  report(value, work.pages);
}
