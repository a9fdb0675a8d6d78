#include "arguments.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <utility>

static std::string Message(const char *name, const char *expected) {
  return std::string(name) + " must be " + expected;
}

void ThrowType(napi_env env, const char *name, const char *expected) {
  napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE",
                        Message(name, expected).c_str());
}

void ThrowRange(napi_env env, const char *name, const char *expected) {
  napi_throw_range_error(env, "ERR_OUT_OF_RANGE",
                         Message(name, expected).c_str());
}

bool RefuseInteger(napi_env env, napi_value value, const char *name,
                   double least, double most) {
  double number;
  if (napi_get_value_double(env, value, &number) != napi_ok) {
    ThrowType(env, name, "a number");
    return false;
  }
  char expected[80];
  snprintf(expected, sizeof expected, "an integer from %.0f to %.0f", least,
           most);
  ThrowRange(env, name, expected);
  return false;
}

bool GetUint64(napi_env env, napi_value value, const char *name,
               uint64_t *result) {
  bool lossless;
  if (napi_get_value_bigint_uint64(env, value, result, &lossless) != napi_ok) {
    ThrowType(env, name, "a bigint");
    return false;
  }
  if (!lossless)
    ThrowRange(env, name, "from 0n to 2n ** 64n - 1n");
  return lossless;
}

bool GetPath(napi_env env, napi_value value, const char *name,
             std::string *result) {
  size_t length;
  if (napi_get_value_string_utf8(env, value, nullptr, 0, &length) != napi_ok) {
    ThrowType(env, name, "a string");
    return false;
  }
  // One byte longer than Linux takes is enough for it to answer ENAMETOOLONG.
  std::string text(std::min<size_t>(length, PATH_MAX) + 1, '\0');
  napi_get_value_string_utf8(env, value, text.data(), text.size(), &length);
  text.resize(length);
  if (text.find('\0') != std::string::npos) {
    ThrowType(env, name, "a string without null characters");
    return false;
  }
  *result = std::move(text);
  return true;
}

/** Whether an empty view is empty because its ArrayBuffer was detached. */
static bool IsDetached(napi_env env, napi_value view) {
  napi_value buffer;
  bool detached = false;
  if (napi_get_typedarray_info(env, view, nullptr, nullptr, nullptr, &buffer,
                               nullptr) == napi_ok)
    napi_is_detached_arraybuffer(env, buffer, &detached);
  return detached;
}

bool GetBytes(napi_env env, napi_value value, const char *name, Bytes *result) {
  napi_typedarray_type type;
  void *data;
  size_t length;
  if (napi_get_typedarray_info(env, value, &type, &length, &data, nullptr,
                               nullptr) != napi_ok ||
      type != napi_uint8_array) {
    ThrowType(env, name, "a Uint8Array");
    return false;
  }
  if (length == 0 && IsDetached(env, value)) {
    ThrowType(env, name, "a Uint8Array whose memory was not detached");
    return false;
  }
  *result = {static_cast<uint8_t *>(data), length};
  return true;
}

napi_value Int32(napi_env env, int32_t value) {
  napi_value result;
  return napi_create_int32(env, value, &result) == napi_ok ? result : nullptr;
}

napi_value Int64(napi_env env, int64_t value) {
  napi_value result;
  return napi_create_int64(env, value, &result) == napi_ok ? result : nullptr;
}

napi_value SystemResult(napi_env env, int64_t result) {
  return Int64(env, result == -1 ? -errno : result);
}
