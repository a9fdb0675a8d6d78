#include "syscalls.h"

#include "arguments.h"
#include "state.h"

#include <cerrno>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

napi_value Open(napi_env env, napi_callback_info info) {
  Arguments<2> arguments(env, info);
  std::string path;
  int flags;
  if (!GetPath(env, arguments[0], "path", &path) ||
      !GetInt32(env, arguments[1], "flags", &flags))
    return nullptr;
  // The mode counts only where the flags create a file.
  int fd = open(path.c_str(), flags | O_CLOEXEC, 0666);
  return SystemResult(env, arguments.state->descriptors.Add(fd));
}

napi_value Close(napi_env env, napi_callback_info info) {
  Arguments<1> arguments(env, info);
  int fd;
  if (!GetInt32(env, arguments[0], "fd", &fd))
    return nullptr;
  arguments.state->descriptors.Remove(fd);
  return SystemResult(env, close(fd));
}

/** ioctl(2)'s third argument: a pointer, an integer, or 0 when left out. */
static bool GetIoctlArgument(napi_env env, napi_value value,
                             unsigned long *result) {
  napi_valuetype type;
  if (napi_typeof(env, value, &type) != napi_ok)
    return false;
  if (type == napi_undefined) {
    *result = 0;
    return true;
  }
  if (type == napi_number) {
    double number;
    if (!GetInteger(env, value, "argument", -kMaxSafeInteger, kMaxSafeInteger,
                    &number))
      return false;
    *result = static_cast<unsigned long>(static_cast<int64_t>(number));
    return true;
  }
  Bytes bytes;
  if (!GetBytes(env, value, "argument", &bytes))
    return false;
  if (bytes.length == 0) {
    ThrowRange(env, "argument", "at least one byte long");
    return false;
  }
  *result = reinterpret_cast<unsigned long>(bytes.data);
  return true;
}

napi_value Ioctl(napi_env env, napi_callback_info info) {
  Arguments<3> arguments(env, info);
  int fd;
  uint32_t request;
  unsigned long argument;
  if (!GetInt32(env, arguments[0], "fd", &fd) ||
      !GetUint32(env, arguments[1], "request", &request) ||
      !GetIoctlArgument(env, arguments[2], &argument))
    return nullptr;
  int result = ioctl(fd, request, argument);
  return Int32(env, result == -1 ? -errno : result);
}

napi_value Read(napi_env env, napi_callback_info info) {
  Arguments<2> arguments(env, info);
  int fd;
  Bytes bytes;
  if (!GetInt32(env, arguments[0], "fd", &fd) ||
      !GetBytes(env, arguments[1], "bytes", &bytes))
    return nullptr;
  return SystemResult(env, read(fd, bytes.data, bytes.length));
}

napi_value Write(napi_env env, napi_callback_info info) {
  Arguments<2> arguments(env, info);
  int fd;
  Bytes bytes;
  if (!GetInt32(env, arguments[0], "fd", &fd) ||
      !GetBytes(env, arguments[1], "bytes", &bytes))
    return nullptr;
  return SystemResult(env, write(fd, bytes.data, bytes.length));
}

napi_value Pread(napi_env env, napi_callback_info info) {
  Arguments<3> arguments(env, info);
  int fd;
  Bytes bytes;
  double offset;
  if (!GetInt32(env, arguments[0], "fd", &fd) ||
      !GetBytes(env, arguments[1], "bytes", &bytes) ||
      !GetInteger(env, arguments[2], "offset", 0, kMaxSafeInteger, &offset))
    return nullptr;
  return SystemResult(
      env, pread(fd, bytes.data, bytes.length, static_cast<off_t>(offset)));
}

napi_value Pwrite(napi_env env, napi_callback_info info) {
  Arguments<3> arguments(env, info);
  int fd;
  Bytes bytes;
  double offset;
  if (!GetInt32(env, arguments[0], "fd", &fd) ||
      !GetBytes(env, arguments[1], "bytes", &bytes) ||
      !GetInteger(env, arguments[2], "offset", 0, kMaxSafeInteger, &offset))
    return nullptr;
  return SystemResult(
      env, pwrite(fd, bytes.data, bytes.length, static_cast<off_t>(offset)));
}

napi_value Poll(napi_env env, napi_callback_info info) {
  Arguments<2> arguments(env, info);
  int fd;
  double events;
  if (!GetInt32(env, arguments[0], "fd", &fd) ||
      !GetInteger(env, arguments[1], "events", 0, INT16_MAX, &events))
    return nullptr;
  pollfd entry = {fd, static_cast<short>(events), 0};
  if (poll(&entry, 1, 0) == -1)
    return Int32(env, -errno);
  // poll(2) passes over negative descriptors and flags closed ones.
  if (fd < 0 || (entry.revents & POLLNVAL))
    return Int32(env, -EBADF);
  return Int32(env, entry.revents);
}

napi_value EventFd(napi_env env, napi_callback_info info) {
  Arguments<2> arguments(env, info);
  uint32_t initial;
  int flags;
  if (!GetUint32(env, arguments[0], "initial", &initial) ||
      !GetInt32(env, arguments[1], "flags", &flags))
    return nullptr;
  int fd = eventfd(initial, flags | EFD_CLOEXEC);
  return SystemResult(env, arguments.state->descriptors.Add(fd));
}

napi_value Duplicate(napi_env env, napi_callback_info info) {
  Arguments<1> arguments(env, info);
  int fd;
  if (!GetInt32(env, arguments[0], "fd", &fd))
    return nullptr;
  int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  return SystemResult(env, arguments.state->descriptors.Add(own));
}

napi_value Adopt(napi_env env, napi_callback_info info) {
  Arguments<1> arguments(env, info);
  int fd;
  if (GetInt32(env, arguments[0], "fd", &fd))
    arguments.state->descriptors.Add(fd);
  return nullptr;
}

napi_value AddressOf(napi_env env, napi_callback_info info) {
  Arguments<1> arguments(env, info);
  void *data = nullptr;
  napi_value buffer;
  if (napi_get_typedarray_info(env, arguments[0], nullptr, nullptr, &data,
                               &buffer, nullptr) != napi_ok &&
      napi_get_dataview_info(env, arguments[0], nullptr, &data, &buffer,
                             nullptr) != napi_ok) {
    ThrowType(env, "bytes", "a view of an ArrayBuffer");
    return nullptr;
  }
  bool detached = false;
  napi_is_detached_arraybuffer(env, buffer, &detached);
  if (detached) {
    ThrowType(env, "bytes", "a view whose memory was not detached");
    return nullptr;
  }
  napi_value result;
  return napi_create_bigint_uint64(env, reinterpret_cast<uint64_t>(data),
                                   &result) == napi_ok
             ? result
             : nullptr;
}
