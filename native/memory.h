#pragma once

#include <napi.h>

#include <cstddef>
#include <memory>

/**
 * Pages mapped into the process. Shared by the Memory that allocated them and
 * by the ArrayBuffer over them, whose finalizer V8 runs on a later turn of the
 * event loop than the one it was detached in: the last of the two unmaps.
 */
class Pages {
public:
  /** Maps at least `length` zeroed bytes; where it cannot, null and errno. */
  static std::shared_ptr<Pages> Map(size_t length, bool huge, bool memfd);
  /** Maps the first `length` bytes of a file that shares its memory. */
  static std::shared_ptr<Pages> MapFile(int fd, size_t length);

  Pages(void *address, size_t length, int fd)
      : address(address), length(length), fd_(fd) {}
  Pages(const Pages &) = delete;
  Pages &operator=(const Pages &) = delete;
  ~Pages();

  int fd() const { return fd_; }
  void CloseFile();
  /** Gives the memory behind the addresses back to the kernel now. */
  void Discard();

  void *const address;
  const size_t length;

private:
  int fd_;
};

/** An ArrayBuffer over `pages` that keeps them; null after an exception. */
napi_value MakeBuffer(Napi::Env env, const std::shared_ptr<Pages> &pages);

/** What `allocate` made and `free` or `release` has not given up. */
struct Memory {
  std::shared_ptr<Pages> pages;
};

/** allocate(length, hugePages, memfd): {handle, buffer, ...} or -errno. */
Napi::Value Allocate(const Napi::CallbackInfo &info);
/** mapMemory(fd, length): the same over a memfd that is there already. */
Napi::Value MapMemory(const Napi::CallbackInfo &info);
/** free(handle, buffer): detaches the buffer and gives the memory back. */
Napi::Value Free(const Napi::CallbackInfo &info);
/** release(handle): leaves the memory to the buffer, until that is collected.
 */
Napi::Value Release(const Napi::CallbackInfo &info);
