#include "calls.h"

#include "arguments.h"
#include "memory.h"
#include "state.h"

#include <cerrno>
#include <cstring>
#include <sys/ioctl.h>

namespace {

/** The head of the page. */
struct Head {
  /** Calls to make; 0 once they were made. */
  uint32_t count;
  /** How many were made without an error. */
  uint32_t done;
};

struct Call {
  int32_t fd;
  uint32_t request;
  /** Where in the page the struct is. */
  uint32_t offset;
  int32_t result;
};

constexpr uint32_t kMostCalls = (kStructsAt - kCallsAt) / sizeof(Call);
/** The type of every iommufd and VFIO request (linux/iommufd.h, vfio.h). */
constexpr uint32_t kVfioType = ';';

Call ReadCall(const uint8_t *page, uint32_t index) {
  Call call;
  memcpy(&call, page + kCallsAt + index * sizeof call, sizeof call);
  return call;
}

/**
 * Whether the struct, and so what the kernel may write, lies within the page:
 * the leading u32 `size` or `argsz` of an iommufd or VFIO struct says how long
 * it is; for other requests, the size encoded in the request.
 */
bool Fits(const uint8_t *page, const Call &call) {
  if (call.offset < kStructsAt ||
      call.offset > kCallPageSize - sizeof(uint32_t))
    return false;
  uint32_t size = _IOC_SIZE(call.request);
  if (_IOC_TYPE(call.request) == kVfioType)
    memcpy(&size, page + call.offset, sizeof size);
  return size <= kCallPageSize - call.offset;
}

int32_t Make(const Call &call, uint8_t *page) {
  int result;
  do
    result = ioctl(call.fd, call.request, page + call.offset);
  while (result == -1 && errno == EINTR);
  return result == -1 ? -errno : result;
}

/** Makes `count` calls until one fails; how many did not. */
uint32_t MakeAll(uint8_t *page, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    Call call = ReadCall(page, i);
    // Looked at again: a call before it may have written into its struct.
    call.result = Fits(page, call) ? Make(call, page) : -EFAULT;
    memcpy(page + kCallsAt + i * sizeof call, &call, sizeof call);
    if (call.result < 0)
      return i;
  }
  return count;
}

} // namespace

napi_value RunCalls(napi_env env, napi_callback_info info) {
  State *state;
  napi_get_cb_info(env, info, nullptr, nullptr, nullptr,
                   reinterpret_cast<void **>(&state));
  if (!state->call_page) {
    napi_throw_type_error(env, nullptr,
                          "there is no call page: callPage() first");
    return nullptr;
  }
  auto *page = static_cast<uint8_t *>(state->call_page->address);
  Head head;
  memcpy(&head, page, sizeof head);
  uint32_t count = head.count;
  // Stores that go nowhere, into a view that was detached, repeat nothing.
  head = {0, 0};
  memcpy(page, &head, sizeof head);
  if (count > kMostCalls) {
    ThrowRange(env, "count", "at most what the call page has room for");
    return nullptr;
  }
  // All before the first: a batch that is refused has done nothing.
  for (uint32_t i = 0; i < count; i++)
    if (!Fits(page, ReadCall(page, i))) {
      ThrowRange(env, "offset", "that of a struct within the call page");
      return nullptr;
    }
  head.done = MakeAll(page, count);
  memcpy(page, &head, sizeof head);
  return nullptr;
}

Napi::Value CallPage(const Napi::CallbackInfo &info) {
  Napi::Env env = info.Env();
  auto *state = static_cast<State *>(info.Data());
  if (!state->call_page) {
    auto page = Pages::Map(kCallPageSize, false, false);
    if (!page)
      return Napi::Number::New(env, -errno);
    napi_value buffer = MakeBuffer(env, page);
    if (!buffer)
      return Napi::Value();
    // One for all: an engine need not take the same memory for two buffers.
    state->call_buffer = Napi::Persistent(Napi::ArrayBuffer(env, buffer));
    state->call_page = std::move(page);
  }
  return state->call_buffer.Value();
}
