// Peer of trials/vm-map-unmap.ts, in the VM: the same ioctls in a C loop.
// Arguments: threads (1 or 2), milliseconds.
#include "measure.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

// The system's headers may be older than iommufd: its numbers and structs.
enum { CALLS = 16, PAGE = 4096, FIRST_IOVA = 0x100000 };
#define IOMMU_IOAS_ALLOC 0x3b81ul
#define IOMMU_IOAS_MAP 0x3b85ul
#define IOMMU_IOAS_UNMAP 0x3b86ul
#define VFIO_DEVICE_BIND_IOMMUFD 0x3b76ul
#define VFIO_DEVICE_ATTACH_IOMMUFD_PT 0x3b77ul
enum { MAP_AT_IOVA = 1, MAP_WRITEABLE = 2, MAP_READABLE = 4 };

struct ioas_alloc {
  uint32_t size, flags, out_ioas_id;
};
struct ioas_map {
  uint32_t size, flags, ioas_id, reserved;
  uint64_t user_va, length, iova;
};
struct ioas_unmap {
  uint32_t size, ioas_id;
  uint64_t iova, length;
};
struct bind_iommufd {
  uint32_t argsz, flags;
  int32_t iommufd;
  uint32_t out_devid;
};
struct attach_pt {
  uint32_t argsz, flags, pt_id, pasid;
};

static const char kDevice[] = "/sys/bus/pci/devices/0000:00:04.0/vfio-dev";

struct work {
  int fd;
  struct ioas_map map;
  struct ioas_unmap unmap;
};

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static int open_device(void) {
  DIR *folder = opendir(kDevice);
  struct dirent *entry;
  while (folder && (entry = readdir(folder)))
    if (!strncmp(entry->d_name, "vfio", 4)) {
      char path[300];
      snprintf(path, sizeof path, "/dev/vfio/devices/%s", entry->d_name);
      return open(path, O_RDWR | O_CLOEXEC);
    }
  return -1;
}

static void batch(void *context) {
  struct work *work = context;
  for (int i = 0; i < CALLS; i++) {
    work->map.iova = work->unmap.iova = FIRST_IOVA + (uint64_t)i * PAGE;
    work->unmap.length = PAGE;
    if (ioctl(work->fd, IOMMU_IOAS_MAP, &work->map) ||
        ioctl(work->fd, IOMMU_IOAS_UNMAP, &work->unmap))
      fail("map, unmap");
  }
}

int main(int argc, char **argv) {
  struct work work = {.fd = open("/dev/iommu", O_RDWR | O_CLOEXEC)};
  int device = open_device();
  char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (argc != 3 || work.fd < 0 || device < 0 || page == MAP_FAILED)
    fail("open");
  page[0] = 1;
  have_threads(atoi(argv[1]));
  struct ioas_alloc alloc = {.size = sizeof alloc};
  struct bind_iommufd bind = {.argsz = sizeof bind, .iommufd = work.fd};
  if (ioctl(work.fd, IOMMU_IOAS_ALLOC, &alloc) ||
      ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &bind))
    fail("alloc, bind");
  struct attach_pt attach = {.argsz = 12, .pt_id = alloc.out_ioas_id};
  if (ioctl(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach))
    fail("attach");
  work.map =
      (struct ioas_map){.size = sizeof work.map,
                        .flags = MAP_AT_IOVA | MAP_WRITEABLE | MAP_READABLE,
                        .ioas_id = alloc.out_ioas_id,
                        .user_va = (uintptr_t)page,
                        .length = PAGE};
  work.unmap = (struct ioas_unmap){.size = sizeof work.unmap,
                                   .ioas_id = alloc.out_ioas_id};
  double value = measure(atof(argv[2]), CALLS, batch, &work);
  printf("{\"value\":%.4f}\n", value);
}
