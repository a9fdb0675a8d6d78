#include "arguments.h"
#include "pump.h"
#include "state.h"

#include <cerrno>

// The pump as JavaScript calls it.

/** The pump that the first argument names, or null after an exception. */
static Pump *FindPump(napi_env env, napi_value value, State *state,
                      double *handle) {
  if (!GetInteger(env, value, "pump", 0, INT32_MAX, handle))
    return nullptr;
  Pump *pump = state->pumps.Find(*handle);
  if (!pump)
    ThrowRange(env, "pump", "an open pump");
  return pump;
}

static Pump *FindPump(const Napi::CallbackInfo &info) {
  double handle;
  return FindPump(info.Env(), info[0], static_cast<State *>(info.Data()),
                  &handle);
}

Napi::Value MakePump(const Napi::CallbackInfo &info) {
  Napi::Env env = info.Env();
  auto *state = static_cast<State *>(info.Data());
  int fd;
  double memory_handle, limit;
  if (!GetInt32(env, info[0], "fd", &fd) ||
      !GetInteger(env, info[1], "memory", 0, INT32_MAX, &memory_handle) ||
      !GetInteger(env, info[2], "limit", 0, kMaxSafeInteger, &limit))
    return Napi::Value();
  Memory *memory = state->memories.Find(memory_handle);
  if (!memory) {
    ThrowRange(env, "memory", "allocated memory");
    return Napi::Value();
  }
  int error;
  auto pump =
      Pump::Make(fd, memory->pages, static_cast<uint64_t>(limit), &error);
  if (!pump)
    return Napi::Number::New(env, error);
  Napi::Object result = Napi::Object::New(env);
  result.Set("doorbell", pump->doorbell());
  result.Set("kick", pump->kick());
  result.Set("handle", state->pumps.Add(std::move(pump)));
  return result;
}

Napi::Value RunPump(const Napi::CallbackInfo &info) {
  Pump *pump = FindPump(info);
  return pump ? Napi::Number::New(info.Env(), pump->Start()) : Napi::Value();
}

Napi::Value ClosePump(const Napi::CallbackInfo &info) {
  double handle;
  auto *state = static_cast<State *>(info.Data());
  if (FindPump(info.Env(), info[0], state, &handle))
    state->pumps.Remove(handle);
  return info.Env().Undefined();
}

Napi::Value PausePump(const Napi::CallbackInfo &info) {
  Pump *pump = FindPump(info);
  if (!pump)
    return Napi::Value();
  if (info[1].ToBoolean())
    pump->Pause();
  else
    pump->Resume();
  return info.Env().Undefined();
}

Napi::Value FillSlot(const Napi::CallbackInfo &info) {
  Napi::Env env = info.Env();
  Pump *pump = FindPump(info);
  uint32_t device, pasid, ioasid;
  uint64_t cookie;
  if (pump && GetUint32(env, info[1], "device", &device) &&
      GetUint32(env, info[2], "pasid", &pasid) &&
      GetUint32(env, info[3], "ioasid", &ioasid) &&
      GetUint64(env, info[4], "cookie", &cookie))
    pump->FillSlot(device, pasid, ioasid, cookie);
  return env.Undefined();
}

Napi::Value EmptySlot(const Napi::CallbackInfo &info) {
  Napi::Env env = info.Env();
  Pump *pump = FindPump(info);
  uint32_t device, pasid;
  if (pump && GetUint32(env, info[1], "device", &device) &&
      GetUint32(env, info[2], "pasid", &pasid))
    pump->EmptySlot(device, pasid);
  return env.Undefined();
}

napi_value PassPump(napi_env env, napi_callback_info info) {
  Arguments<2> arguments(env, info);
  double handle;
  Pump *pump = FindPump(env, arguments[0], arguments.state, &handle);
  bool fill = false;
  if (!pump)
    return nullptr;
  napi_get_value_bool(env, arguments[1], &fill);
  return Int32(env, pump->Pass(fill));
}

napi_value IsCurrentGroup(napi_env env, napi_callback_info info) {
  Arguments<3> arguments(env, info);
  double handle;
  uint32_t cookie, generation;
  Pump *pump = FindPump(env, arguments[0], arguments.state, &handle);
  if (!pump || !GetUint32(env, arguments[1], "cookie", &cookie) ||
      !GetUint32(env, arguments[2], "generation", &generation))
    return nullptr;
  napi_value result;
  return napi_get_boolean(env, pump->IsCurrent(cookie, generation), &result) ==
                 napi_ok
             ? result
             : nullptr;
}
