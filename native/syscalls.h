#pragma once

#include <node_api.h>

// One function per system call. Each returns the call's result, or -errno;
// none retries after EINTR.

napi_value Open(napi_env env, napi_callback_info info);
napi_value Close(napi_env env, napi_callback_info info);
napi_value Ioctl(napi_env env, napi_callback_info info);
napi_value Read(napi_env env, napi_callback_info info);
napi_value Write(napi_env env, napi_callback_info info);
napi_value Pread(napi_env env, napi_callback_info info);
napi_value Pwrite(napi_env env, napi_callback_info info);
napi_value Poll(napi_env env, napi_callback_info info);
napi_value EventFd(napi_env env, napi_callback_info info);
/** F_DUPFD_CLOEXEC of fcntl(2). */
napi_value Duplicate(napi_env env, napi_callback_info info);

/**
 * Takes a descriptor that came out of an ioctl: it is closed with the
 * environment, as those of open and eventfd are.
 */
napi_value Adopt(napi_env env, napi_callback_info info);

/** Address of a view's first byte, as a bigint. */
napi_value AddressOf(napi_env env, napi_callback_info info);
