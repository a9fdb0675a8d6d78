#pragma once

#include <unistd.h>

#include <unordered_set>

/**
 * The file descriptors of one environment. A worker that ends, or is ended,
 * closes nothing by itself, and a descriptor that stays open keeps a device
 * bound for as long as the process lives.
 */
class Descriptors {
public:
  Descriptors() = default;
  Descriptors(const Descriptors &) = delete;
  Descriptors &operator=(const Descriptors &) = delete;

  ~Descriptors() {
    for (int fd : open_)
      close(fd);
  }

  /** Takes what open(2) and its like returned; errors pass through. */
  int Add(int fd) {
    if (fd >= 0)
      open_.insert(fd);
    return fd;
  }

  void Remove(int fd) { open_.erase(fd); }

private:
  std::unordered_set<int> open_;
};
