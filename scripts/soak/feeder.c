// Stands in for the kernel's fault file, in a soak of the addon's pump: runs a
// program with one end of a socket as descriptor 3, and through the other sends
// it faults and takes its responses. Each fault carries its number; groups have
// 1, 1, 2 and 4 faults in turn, and cookies that are used again as soon as they
// are answered. Arguments: faults, the program and its arguments.
#include "../../native/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COOKIES = 4096, RECORD = 40, LAST_PAGE = 2 };

// Linux keeps a write of 32 KiB together: readers see all of it, or nothing.
enum { MOST = 800 };

static uint32_t free_cookies[COOKIES];
static uint64_t taken, given = COOKIES;
// The code that a cookie's group is to be answered with; 2: there is none.
static uint8_t expected[COOKIES];

static void fail(const char *what, uint64_t number) {
  fprintf(stderr, "feeder: %s %llu\n", what, (unsigned long long)number);
  exit(1);
}

static void take_responses(int fd) {
  // Read in part, a response is continued by the next read.
  static uint8_t bytes[8 * 1024];
  static size_t length;
  ssize_t got = read(fd, bytes + length, sizeof bytes - length);
  if (got == 0)
    fail("the program ended, groups sent:", taken);
  if (got < 0 && errno != EAGAIN)
    fail("read: errno", (uint64_t)errno);
  if (got < 0)
    return;
  length += (size_t)got;
  size_t at = 0;
  for (; at + 8 <= length; at += 8) {
    uint32_t response[2];
    memcpy(response, bytes + at, sizeof response);
    if (response[0] >= COOKIES || expected[response[0]] == 2)
      fail("a response to nothing:", response[0]);
    if (expected[response[0]] != response[1])
      fail("the wrong answer:", response[1]);
    expected[response[0]] = 2;
    free_cookies[given++ % COOKIES] = response[0];
  }
  memmove(bytes, bytes + at, length - at);
  length -= at;
}

// Whole rounds of groups (1, 1, 2, 4 faults), so that a read which takes a
// multiple of 8 records cuts none. Returns the faults.
static uint32_t fill(uint8_t *bytes, uint64_t first, uint64_t left) {
  static const uint32_t sizes[] = {1, 1, 2, 4};
  uint32_t count = 0;
  while (count + 8 <= MOST && count + 8 <= left && given - taken >= 4)
    for (int i = 0; i < 4; i++) {
      uint32_t cookie = free_cookies[taken++ % COOKIES];
      expected[cookie] = (first + count) % 5 == 0;
      for (uint32_t n = 0; n < sizes[i]; n++, count++) {
        struct ring_fault fault = {.dev_id = 2,
                                   .perm = 1,
                                   .flags = n + 1 == sizes[i] ? LAST_PAGE : 0,
                                   .addr = (first + count) << 12,
                                   .group_cookie = cookie};
        memcpy(bytes + count * RECORD, &fault, RECORD);
      }
    }
  return count;
}

static void feed(int fd, uint64_t faults) {
  static uint8_t bytes[MOST * RECORD];
  size_t length = 0;
  for (uint64_t sent = 0;
       sent < faults || length > 0 || given - taken < COOKIES;) {
    if (length == 0) {
      uint32_t count = fill(bytes, sent, faults - sent);
      sent += count;
      length = (size_t)count * RECORD;
    }
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    if (length > 0)
      entry.events |= POLLOUT;
    if (poll(&entry, 1, -1) == -1)
      continue;
    if (entry.revents & (POLLIN | POLLHUP))
      take_responses(fd);
    if (length == 0 || !(entry.revents & POLLOUT))
      continue;
    ssize_t written = write(fd, bytes, length);
    if (written == -1 && errno == EAGAIN)
      continue;
    // A part of it might end within a record.
    if (written != (ssize_t)length)
      fail("write took bytes:", (uint64_t)written);
    length = 0;
  }
}

int main(int argc, char **argv) {
  int ends[2];
  if (argc < 3 || socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == -1)
    return 2;
  pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    if (ends[1] != 3 && dup2(ends[1], 3) == -1)
      return 2;
    execvp(argv[2], argv + 2);
    return 2;
  }
  close(ends[1]);
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  for (uint32_t i = 0; i < COOKIES; i++) {
    free_cookies[i] = i;
    expected[i] = 2;
  }
  feed(ends[0], strtoull(argv[1], NULL, 10));
  close(ends[0]);
  int status;
  if (waitpid(child, &status, 0) == -1)
    return 2;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
