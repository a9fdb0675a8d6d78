#include "memory.h"

#include "arguments.h"
#include "state.h"

#include <cerrno>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/** Size of the pages a memfd is made of: the huge page size, where it is so. */
static int PageSizeOf(int fd, size_t *size) {
  struct statfs status;
  if (fstatfs(fd, &status) == -1)
    return -1;
  *size = static_cast<size_t>(status.f_bsize);
  return 0;
}

/** Gives a memfd its size, for good: whoever gets it could take memory away
 * from this process otherwise. */
static bool SetSize(int fd, size_t length) {
  return ftruncate(fd, static_cast<off_t>(length)) == 0 &&
         fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0;
}

/** Maps `fd`, or anonymous memory if it is -1. */
static std::shared_ptr<Pages> MapPages(int fd, size_t length, size_t page_size,
                                       bool huge) {
  length = (length + page_size - 1) / page_size * page_size;
  if (fd != -1 && !SetSize(fd, length))
    return nullptr;
  int flags = fd != -1 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
  if (huge && fd == -1)
    flags |= MAP_HUGETLB;
  void *address = mmap(nullptr, length, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (address == MAP_FAILED)
    return nullptr;
  return std::make_shared<Pages>(address, length, fd);
}

std::shared_ptr<Pages> Pages::Map(size_t length, bool huge, bool memfd) {
  if (!huge && !memfd)
    return MapPages(-1, length, static_cast<size_t>(sysconf(_SC_PAGESIZE)),
                    false);
  int fd = memfd_create("dma", MFD_CLOEXEC | MFD_ALLOW_SEALING |
                                   (huge ? MFD_HUGETLB : 0));
  if (fd == -1)
    return nullptr;
  size_t page_size;
  std::shared_ptr<Pages> pages;
  // Huge pages without a memfd need one all the same, to learn their size:
  // munmap(2) takes only whole ones.
  if (PageSizeOf(fd, &page_size) == 0)
    pages = MapPages(memfd ? fd : -1, length, page_size, huge);
  if (!pages || !memfd) {
    int error = errno;
    close(fd);
    errno = error;
  }
  return pages;
}

std::shared_ptr<Pages> Pages::MapFile(int fd, size_t length) {
  struct stat status;
  if (fstat(fd, &status) == -1)
    return nullptr;
  // An access beyond the end of a file kills the process.
  if (length == 0 || static_cast<uint64_t>(status.st_size) < length) {
    errno = EINVAL;
    return nullptr;
  }
  int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  void *address = own == -1 ? MAP_FAILED
                            : mmap(nullptr, length, PROT_READ | PROT_WRITE,
                                   MAP_SHARED, own, 0);
  if (address != MAP_FAILED)
    return std::make_shared<Pages>(address, length, own);
  int error = errno;
  if (own != -1)
    close(own);
  errno = error;
  return nullptr;
}

Pages::~Pages() {
  munmap(address, length);
  CloseFile();
}

void Pages::CloseFile() {
  if (fd_ != -1)
    close(fd_);
  fd_ = -1;
}

void Pages::Discard() {
  // Not munmap(2): until V8 has run the ArrayBuffer's finalizer, nothing else
  // may be given these addresses.
  mmap(address, length, PROT_READ | PROT_WRITE,
       MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

napi_value MakeBuffer(Napi::Env env, const std::shared_ptr<Pages> &pages) {
  auto *share = new std::shared_ptr<Pages>(pages);
  auto finalize = [](napi_env, void *, void *hint) {
    delete static_cast<std::shared_ptr<Pages> *>(hint);
  };
  napi_value buffer;
  napi_status status = napi_create_external_arraybuffer(
      env, pages->address, pages->length, finalize, share, &buffer);
  if (status == napi_ok)
    return buffer;
  // After other failures, such as a length beyond the engine's, Node runs the
  // finalizer.
  if (status == napi_no_external_buffers_allowed)
    delete share;
  if (!env.IsExceptionPending())
    napi_throw_error(env, nullptr,
                     "this JavaScript engine cannot show external memory");
  return nullptr;
}

/** The memory as JavaScript gets it; where there are no `pages`, -errno. */
static Napi::Value Show(const Napi::CallbackInfo &info,
                        std::shared_ptr<Pages> pages) {
  Napi::Env env = info.Env();
  if (!pages)
    return Napi::Number::New(env, -errno);
  napi_value buffer = MakeBuffer(env, pages);
  if (!buffer)
    return Napi::Value();
  auto *state = static_cast<State *>(info.Data());
  Napi::Object result = Napi::Object::New(env);
  result.Set("buffer", buffer);
  result.Set("address", Napi::BigInt::New(
                            env, reinterpret_cast<uint64_t>(pages->address)));
  result.Set("length", static_cast<double>(pages->length));
  result.Set("fd", pages->fd());
  auto memory = std::make_unique<Memory>();
  memory->pages = std::move(pages);
  result.Set("handle", state->memories.Add(std::move(memory)));
  return result;
}

Napi::Value Allocate(const Napi::CallbackInfo &info) {
  Napi::Env env = info.Env();
  double length;
  if (!GetInteger(env, info[0], "length", 0, kMaxSafeInteger, &length))
    return Napi::Value();
  if (!info[1].IsBoolean() || !info[2].IsBoolean()) {
    ThrowType(env, info[1].IsBoolean() ? "memfd" : "hugePages", "a boolean");
    return Napi::Value();
  }
  return Show(info, Pages::Map(static_cast<size_t>(length),
                               info[1].As<Napi::Boolean>().Value(),
                               info[2].As<Napi::Boolean>().Value()));
}

Napi::Value MapMemory(const Napi::CallbackInfo &info) {
  Napi::Env env = info.Env();
  int fd;
  double length;
  if (!GetInt32(env, info[0], "fd", &fd) ||
      !GetInteger(env, info[1], "length", 0, kMaxSafeInteger, &length))
    return Napi::Value();
  return Show(info, Pages::MapFile(fd, static_cast<size_t>(length)));
}

/** The memory and the number that its handle, the first argument, names. */
static Memory *FindMemory(const Napi::CallbackInfo &info, double *handle) {
  if (!GetInteger(info.Env(), info[0], "handle", 0, INT32_MAX, handle))
    return nullptr;
  Memory *memory = static_cast<State *>(info.Data())->memories.Find(*handle);
  if (!memory)
    ThrowRange(info.Env(), "handle", "one of allocated memory");
  return memory;
}

Napi::Value Free(const Napi::CallbackInfo &info) {
  Napi::Env env = info.Env();
  double handle;
  Memory *memory = FindMemory(info, &handle);
  if (!memory)
    return Napi::Value();
  void *data;
  size_t length;
  if (napi_get_arraybuffer_info(env, info[1], &data, &length) != napi_ok) {
    ThrowType(env, "buffer", "an ArrayBuffer");
    return Napi::Value();
  }
  Pages &pages = *memory->pages;
  // Someone may have transferred the buffer: then another one has the memory
  // now, and keeps it until it is collected.
  if (data == pages.address && length == pages.length &&
      napi_detach_arraybuffer(env, info[1]) == napi_ok)
    pages.Discard();
  pages.CloseFile();
  static_cast<State *>(info.Data())->memories.Remove(handle);
  return env.Undefined();
}

Napi::Value Release(const Napi::CallbackInfo &info) {
  double handle;
  if (!FindMemory(info, &handle))
    return Napi::Value();
  static_cast<State *>(info.Data())->memories.Remove(handle);
  return info.Env().Undefined();
}
