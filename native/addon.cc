#include "arguments.h"
#include "calls.h"
#include "mapping.h"
#include "memory.h"
#include "pump.h"
#include "state.h"
#include "syscalls.h"
#include "watch.h"

#include <napi.h>
#include <unistd.h>

// The addon: system calls, memory, readiness and rings for lib/linux, which is
// the only place that calls it. It knows no driver's structs.

// The hot calls are plain Node-API functions: node-addon-api's wrapper costs
// as much again as an empty call.
static void ExportPlain(Napi::Env env, Napi::Object exports, const char *name,
                        napi_callback function, State *state) {
  napi_value value;
  if (napi_create_function(env, name, NAPI_AUTO_LENGTH, function, state,
                           &value) == napi_ok)
    exports.Set(name, value);
}

template <Napi::Value (*function)(const Napi::CallbackInfo &)>
static void Export(Napi::Env env, Napi::Object exports, const char *name,
                   State *state) {
  exports.Set(name, Napi::Function::New<function>(env, name, state));
}

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  auto *state = new State();
  env.SetInstanceData(state);

  ExportPlain(env, exports, "open", Open, state);
  ExportPlain(env, exports, "close", Close, state);
  ExportPlain(env, exports, "ioctl", Ioctl, state);
  ExportPlain(env, exports, "runCalls", RunCalls, state);
  ExportPlain(env, exports, "read", Read, state);
  ExportPlain(env, exports, "write", Write, state);
  ExportPlain(env, exports, "pread", Pread, state);
  ExportPlain(env, exports, "pwrite", Pwrite, state);
  ExportPlain(env, exports, "poll", Poll, state);
  ExportPlain(env, exports, "eventfd", EventFd, state);
  ExportPlain(env, exports, "duplicate", Duplicate, state);
  ExportPlain(env, exports, "adopt", Adopt, state);
  ExportPlain(env, exports, "addressOf", AddressOf, state);
  ExportPlain(env, exports, "load", Load, state);
  ExportPlain(env, exports, "load64", Load64, state);
  ExportPlain(env, exports, "store", Store, state);
  ExportPlain(env, exports, "store64", Store64, state);
  ExportPlain(env, exports, "storeBlock", StoreBlock, state);
  ExportPlain(env, exports, "passPump", PassPump, state);
  ExportPlain(env, exports, "isCurrentGroup", IsCurrentGroup, state);

  Export<Mmap>(env, exports, "mmap", state);
  Export<Unmap>(env, exports, "unmap", state);
  Export<CallPage>(env, exports, "callPage", state);
  Export<Allocate>(env, exports, "allocate", state);
  Export<MapMemory>(env, exports, "mapMemory", state);
  Export<Free>(env, exports, "free", state);
  Export<Release>(env, exports, "release", state);
  Export<StartWatch>(env, exports, "watch", state);
  Export<StartCounterWatch>(env, exports, "watchCounter", state);
  Export<CloseWatch>(env, exports, "closeWatch", state);
  Export<RefWatch>(env, exports, "refWatch", state);
  Export<UnrefWatch>(env, exports, "unrefWatch", state);
  Export<MakePump>(env, exports, "pump", state);
  Export<RunPump>(env, exports, "runPump", state);
  Export<ClosePump>(env, exports, "closePump", state);
  Export<PausePump>(env, exports, "pausePump", state);
  Export<FillSlot>(env, exports, "fillSlot", state);
  Export<EmptySlot>(env, exports, "emptySlot", state);

  exports.Set("pageSize", static_cast<double>(sysconf(_SC_PAGESIZE)));
  return exports;
}

NODE_API_MODULE(iommufd, Init)
