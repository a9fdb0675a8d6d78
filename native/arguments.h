#pragma once

#include <node_api.h>

#include <cstddef>
#include <cstdint>
#include <string>

struct State;

/** The largest integer a JavaScript number holds exactly: 2^53 - 1. */
constexpr double kMaxSafeInteger = 9007199254740991.0;

/** The arguments of one call (undefined where none was passed). */
template <size_t N> struct Arguments {
  Arguments(napi_env env, napi_callback_info info) {
    size_t count = N;
    napi_get_cb_info(env, info, &count, values, nullptr,
                     reinterpret_cast<void **>(&state));
  }
  napi_value operator[](size_t index) const { return values[index]; }

  napi_value values[N];
  State *state = nullptr;
};

struct Bytes {
  uint8_t *data;
  size_t length;
};

/** Throws what GetInteger throws; false. */
bool RefuseInteger(napi_env env, napi_value value, const char *name,
                   double least, double most);

// Each of these throws a TypeError or RangeError that names the argument, and
// returns false, when the value does not fit.

/** An integer from `least` to `most`, both within +-kMaxSafeInteger. */
inline bool GetInteger(napi_env env, napi_value value, const char *name,
                       double least, double most, double *result) {
  // Not napi_get_value_int32: it turns NaN into 0, which is a valid descriptor.
  if (napi_get_value_double(env, value, result) == napi_ok &&
      *result >= least && *result <= most &&
      static_cast<double>(static_cast<int64_t>(*result)) == *result)
    return true;
  return RefuseInteger(env, value, name, least, most);
}

inline bool GetInt32(napi_env env, napi_value value, const char *name,
                     int *result) {
  double number = 0;
  if (!GetInteger(env, value, name, INT32_MIN, INT32_MAX, &number))
    return false;
  *result = static_cast<int>(number);
  return true;
}

inline bool GetUint32(napi_env env, napi_value value, const char *name,
                      uint32_t *result) {
  double number = 0;
  if (!GetInteger(env, value, name, 0, UINT32_MAX, &number))
    return false;
  *result = static_cast<uint32_t>(number);
  return true;
}

/** A 64-bit unsigned bigint. */
bool GetUint64(napi_env env, napi_value value, const char *name,
               uint64_t *result);
/** A string without null characters. */
bool GetPath(napi_env env, napi_value value, const char *name,
             std::string *result);
/** A Uint8Array (or Buffer) over memory that is still there. */
bool GetBytes(napi_env env, napi_value value, const char *name, Bytes *result);

void ThrowType(napi_env env, const char *name, const char *expected);
void ThrowRange(napi_env env, const char *name, const char *expected);

napi_value Int32(napi_env env, int32_t value);
napi_value Int64(napi_env env, int64_t value);
/** The result of a system call: itself, or -errno where it is -1. */
napi_value SystemResult(napi_env env, int64_t result);
