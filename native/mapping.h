#pragma once

#include <napi.h>

#include <cstddef>
#include <cstdint>

/** Device memory mapped into the process; unmapped when destroyed. */
class DeviceMapping {
public:
  DeviceMapping(void *address, size_t length, int protection)
      : address_(static_cast<uint8_t *>(address)), length_(length),
        protection_(protection) {}
  DeviceMapping(const DeviceMapping &) = delete;
  DeviceMapping &operator=(const DeviceMapping &) = delete;
  ~DeviceMapping();

  size_t length() const { return length_; }
  int protection() const { return protection_; }
  uint8_t *at(double offset) const {
    return address_ + static_cast<size_t>(offset);
  }

private:
  uint8_t *const address_;
  const size_t length_;
  const int protection_;
};

/** mmap(fd, offset, length, protection): a handle, or -errno. */
Napi::Value Mmap(const Napi::CallbackInfo &info);
/** unmap(handle) */
Napi::Value Unmap(const Napi::CallbackInfo &info);

/** load(handle, offset, width): a number */
napi_value Load(napi_env env, napi_callback_info info);
/** load64(handle, offset): a bigint */
napi_value Load64(napi_env env, napi_callback_info info);
/** store(handle, offset, width, value) */
napi_value Store(napi_env env, napi_callback_info info);
/** store64(handle, offset, value) */
napi_value Store64(napi_env env, napi_callback_info info);
/** storeBlock(handle, offset, bytes): 0, or -EOPNOTSUPP */
napi_value StoreBlock(napi_env env, napi_callback_info info);
