/*
 * Preloaded into a test's process: a file that behaves as iommufd's fault file
 * does, so that the addon's pump can be tried without one. Descriptor 100 is
 * the file; what is written to 101 happens to it, one message at a time:
 *
 *   records        a group of faults, or an event
 *   4 bytes        a cookie: the kernel answers that group itself
 *   2 bytes        an errno: read(2) fails with it
 *
 * Reads give whole groups, and EINVAL where the first does not fit. Writes take
 * responses to groups that were read, up to the first for another (EINVAL where
 * that is the first); what was taken can be read from 101, 8 bytes each.
 * FAULT_FILE_WRITES: bytes that one write(2) takes at most.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_FD = 100, DEVICE_FD = 101, RECORD = 40, COOKIE = 36 };
enum { COOKIES = 1 << 16 };

static ino_t inode;
static uint8_t waiting[COOKIES];
static size_t most = SIZE_MAX;
/* The beginning of a response of which a write took a part. */
static uint8_t part[8];
static size_t part_length;

__attribute__((constructor)) static void make(void) {
  int ends[2];
  struct stat status;
  int room = 1 << 22;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == -1 ||
      fstat(ends[0], &status) == -1)
    abort();
  for (int i = 0; i < 2; i++)
    setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  inode = status.st_ino;
  if (dup3(ends[0], FILE_FD, O_CLOEXEC) == -1 ||
      dup3(ends[1], DEVICE_FD, O_CLOEXEC) == -1)
    abort();
  close(ends[0]);
  close(ends[1]);
  if (getenv("FAULT_FILE_WRITES"))
    most = (size_t)atoi(getenv("FAULT_FILE_WRITES"));
}

static bool is_file(int fd) {
  struct stat status;
  return fd > 2 && fstat(fd, &status) == 0 && status.st_ino == inode &&
         S_ISSOCK(status.st_mode);
}

static ssize_t fail(int error) {
  errno = error;
  return -1;
}

static ssize_t read_groups(int fd, uint8_t *bytes, size_t count) {
  size_t total = 0;
  for (;;) {
    uint32_t word = 0;
    ssize_t next =
        recv(fd, &word, sizeof word, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
    if (next <= 0)
      return total > 0 || next == 0 ? (ssize_t)total : -1;
    if (next == 2 && total > 0)
      return (ssize_t)total;
    if (next <= 4) {
      recv(fd, &word, sizeof word, MSG_DONTWAIT);
      if (next == 2)
        return fail((int)word);
      waiting[word % COOKIES] = 0;
      continue;
    }
    if (total + (size_t)next > count)
      return total > 0 ? (ssize_t)total : fail(EINVAL);
    recv(fd, bytes + total, (size_t)next, MSG_DONTWAIT);
    total += (size_t)next;
    if (next % RECORD == 0) {
      memcpy(&word, bytes + total - RECORD + COOKIE, sizeof word);
      waiting[word % COOKIES] = 1;
    }
  }
}

static ssize_t write_responses(int fd, const uint8_t *bytes, size_t count) {
  size_t done = 0;
  uint32_t answered;
  while (recv(fd, &answered, sizeof answered,
              MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT) == sizeof answered) {
    waiting[answered % COOKIES] = 0;
    recv(fd, &answered, sizeof answered, MSG_DONTWAIT);
  }
  for (; done < count && done < most; done++) {
    part[part_length++] = bytes[done];
    if (part_length < sizeof part)
      continue;
    part_length = 0;
    uint32_t cookie;
    memcpy(&cookie, part, sizeof cookie);
    if (!waiting[cookie % COOKIES]) {
      done = done / sizeof part * sizeof part;
      return done > 0 ? (ssize_t)done : fail(EINVAL);
    }
    waiting[cookie % COOKIES] = 0;
    if (send(fd, part, sizeof part, MSG_NOSIGNAL) == -1)
      return -1;
  }
  return (ssize_t)done;
}

__attribute__((visibility("default"))) ssize_t read(int fd, void *bytes,
                                                    size_t count) {
  static ssize_t (*next)(int, void *, size_t);
  if (!next)
    next = (ssize_t(*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
  return is_file(fd) ? read_groups(fd, bytes, count) : next(fd, bytes, count);
}

__attribute__((visibility("default"))) ssize_t write(int fd, const void *bytes,
                                                     size_t count) {
  static ssize_t (*next)(int, const void *, size_t);
  if (!next)
    next = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
  return is_file(fd) ? write_responses(fd, bytes, count)
                     : next(fd, bytes, count);
}
