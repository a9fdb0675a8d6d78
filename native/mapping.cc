#include "mapping.h"

#include "arguments.h"
#include "state.h"

#include <cerrno>
#include <cmath>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static_assert(sizeof(void *) == 8,
              "8-byte accesses must be single instructions");

// What a device is told must not overtake what was written to memory for it,
// nor a read of memory overtake what the device was seen to say. x86 keeps
// that order by itself; its compiler has to be held to it.
#if defined(__x86_64__)
static inline void BeforeStore() { asm volatile("" ::: "memory"); }
static inline void AfterLoad() { asm volatile("" ::: "memory"); }
#elif defined(__aarch64__)
static inline void BeforeStore() { asm volatile("dmb osh" ::: "memory"); }
static inline void AfterLoad() { asm volatile("dmb oshld" ::: "memory"); }
#else
static inline void BeforeStore() { __sync_synchronize(); }
static inline void AfterLoad() { __sync_synchronize(); }
#endif

template <typename T> static T LoadFrom(const uint8_t *address) {
  T value = *reinterpret_cast<const volatile T *>(address);
  AfterLoad();
  return value;
}

template <typename T> static void StoreTo(uint8_t *address, T value) {
  BeforeStore();
  *reinterpret_cast<volatile T *>(address) = value;
}

/** Bytes of the widest store. */
static constexpr size_t kBlock = 64;

#if defined(__x86_64__)
/** CPUID.(EAX=7,ECX=0):ECX[28]. */
static bool CanStoreBlocks() {
  static const bool can = [] {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (ecx >> 28 & 1);
  }();
  return can;
}

/** MOVDIR64B, as bytes: older assemblers do not know it. It is weakly ordered,
 * hence the fence. */
static void StoreBlockTo(uint8_t *address, const uint8_t *from) {
  asm volatile("sfence\n\t.byte 0x66, 0x0f, 0x38, 0xf8, 0x02"
               :
               : "a"(address), "d"(from)
               : "memory");
}
#else
static bool CanStoreBlocks() { return false; }
static void StoreBlockTo(uint8_t *, const uint8_t *) {}
#endif

DeviceMapping::~DeviceMapping() { munmap(address_, length_); }

/** Whether part of a mapping would lie beyond the last page of a file. */
static bool IsBeyondFile(int fd, double offset, double length) {
  struct stat status;
  if (fstat(fd, &status) == -1 || !S_ISREG(status.st_mode))
    return false;
  double page_size = static_cast<double>(sysconf(_SC_PAGESIZE));
  double pages = std::ceil(static_cast<double>(status.st_size) / page_size);
  return offset + length > pages * page_size;
}

Napi::Value Mmap(const Napi::CallbackInfo &info) {
  Napi::Env env = info.Env();
  int fd;
  double offset, length, protection;
  if (!GetInt32(env, info[0], "fd", &fd) ||
      !GetInteger(env, info[1], "offset", 0, kMaxSafeInteger, &offset) ||
      !GetInteger(env, info[2], "length", 0, kMaxSafeInteger, &length) ||
      !GetInteger(env, info[3], "protection", 1, PROT_READ | PROT_WRITE,
                  &protection))
    return Napi::Value();
  // Linux would map it, and kill the process at the first access.
  if (IsBeyondFile(fd, offset, length))
    return Napi::Number::New(env, -EINVAL);
  void *address =
      mmap(nullptr, static_cast<size_t>(length), static_cast<int>(protection),
           MAP_SHARED, fd, static_cast<off_t>(offset));
  if (address == MAP_FAILED)
    return Napi::Number::New(env, -errno);
  auto mapping = std::make_unique<DeviceMapping>(
      address, static_cast<size_t>(length), static_cast<int>(protection));
  auto *state = static_cast<State *>(info.Data());
  return Napi::Number::New(env, state->mappings.Add(std::move(mapping)));
}

Napi::Value Unmap(const Napi::CallbackInfo &info) {
  double handle;
  if (!GetInteger(info.Env(), info[0], "handle", 0, INT32_MAX, &handle))
    return Napi::Value();
  if (!static_cast<State *>(info.Data())->mappings.Remove(handle))
    ThrowRange(info.Env(), "handle", "one of a mapping");
  return info.Env().Undefined();
}

/**
 * Where an access of `width` bytes goes: both the handle and the offset, the
 * first two arguments, checked. Null after an exception.
 */
template <size_t N>
static uint8_t *FindAccess(napi_env env, const Arguments<N> &arguments,
                           double width, int protection) {
  double handle, offset;
  if (!GetInteger(env, arguments[0], "handle", INT32_MIN, INT32_MAX, &handle))
    return nullptr;
  DeviceMapping *mapping = arguments.state->mappings.Find(handle);
  if (!mapping) {
    ThrowType(env, "mapping", "one that has not been unmapped");
    return nullptr;
  }
  if (!(mapping->protection() & protection)) {
    ThrowType(env, "mapping",
              protection == PROT_READ ? "readable" : "writable");
    return nullptr;
  }
  if (!GetInteger(env, arguments[1], "offset", 0,
                  static_cast<double>(mapping->length()) - width, &offset))
    return nullptr;
  if (static_cast<uint64_t>(offset) & (static_cast<uint64_t>(width) - 1)) {
    ThrowRange(env, "offset", "a multiple of the width");
    return nullptr;
  }
  return mapping->at(offset);
}

static bool GetWidth(napi_env env, napi_value value, double *width) {
  if (!GetInteger(env, value, "width", 1, 4, width))
    return false;
  if (*width == 3)
    ThrowRange(env, "width", "1, 2 or 4");
  return *width != 3;
}

napi_value Load(napi_env env, napi_callback_info info) {
  Arguments<3> arguments(env, info);
  double width;
  if (!GetWidth(env, arguments[2], &width))
    return nullptr;
  uint8_t *address = FindAccess(env, arguments, width, PROT_READ);
  if (!address)
    return nullptr;
  if (width == 1)
    return Int32(env, LoadFrom<uint8_t>(address));
  if (width == 2)
    return Int32(env, LoadFrom<uint16_t>(address));
  return Int64(env, LoadFrom<uint32_t>(address));
}

napi_value Load64(napi_env env, napi_callback_info info) {
  Arguments<2> arguments(env, info);
  uint8_t *address = FindAccess(env, arguments, 8, PROT_READ);
  if (!address)
    return nullptr;
  napi_value result;
  return napi_create_bigint_uint64(env, LoadFrom<uint64_t>(address), &result) ==
                 napi_ok
             ? result
             : nullptr;
}

napi_value Store(napi_env env, napi_callback_info info) {
  Arguments<4> arguments(env, info);
  double width, value;
  if (!GetWidth(env, arguments[2], &width))
    return nullptr;
  uint8_t *address = FindAccess(env, arguments, width, PROT_WRITE);
  double most = width == 1 ? UINT8_MAX : width == 2 ? UINT16_MAX : UINT32_MAX;
  if (!address || !GetInteger(env, arguments[3], "value", 0, most, &value))
    return nullptr;
  if (width == 1)
    StoreTo(address, static_cast<uint8_t>(value));
  else if (width == 2)
    StoreTo(address, static_cast<uint16_t>(value));
  else
    StoreTo(address, static_cast<uint32_t>(value));
  return nullptr;
}

napi_value Store64(napi_env env, napi_callback_info info) {
  Arguments<3> arguments(env, info);
  uint8_t *address = FindAccess(env, arguments, 8, PROT_WRITE);
  uint64_t value;
  if (!address || !GetUint64(env, arguments[2], "value", &value))
    return nullptr;
  StoreTo(address, value);
  return nullptr;
}

napi_value StoreBlock(napi_env env, napi_callback_info info) {
  Arguments<3> arguments(env, info);
  uint8_t *address = FindAccess(env, arguments, kBlock, PROT_WRITE);
  Bytes bytes;
  if (!address || !GetBytes(env, arguments[2], "bytes", &bytes))
    return nullptr;
  if (bytes.length != kBlock) {
    ThrowRange(env, "bytes", "64 long");
    return nullptr;
  }
  if (!CanStoreBlocks())
    return Int32(env, -EOPNOTSUPP);
  StoreBlockTo(address, bytes.data);
  return Int32(env, 0);
}
