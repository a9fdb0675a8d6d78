#include "watch.h"

#include "arguments.h"
#include "state.h"

#include <cerrno>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

/** libuv's names for what poll(2) calls otherwise. */
static int ToUvEvents(short events) {
  int result = 0;
  if (events & (POLLIN | POLLRDNORM))
    result |= UV_READABLE;
  if (events & (POLLOUT | POLLWRNORM))
    result |= UV_WRITABLE;
  if (events & POLLPRI)
    result |= UV_PRIORITIZED;
  return result;
}

Watch::Watch(Napi::Env env, int fd, short events, bool counter,
             Napi::Function callback)
    : env_(env), callback_(Napi::Persistent(callback)),
      resource_(Napi::Persistent(Napi::Object::New(env))),
      context_(env, "iommufd.watch", resource_.Value()), fd_(fd),
      events_(events), counter_(counter) {
  poll_.data = this;
}

/** Makes the libuv handle; if that fails there is none to close. */
int Watch::Init() {
  uv_loop_t *loop;
  if (napi_get_uv_event_loop(env_, &loop) != napi_ok)
    return -EINVAL;
  // uv_poll_init makes the open file non-blocking, behind its owner's back.
  int flags = fcntl(fd_, F_GETFL);
  if (flags == -1)
    return -errno;
  int error = uv_poll_init(loop, &poll_, fd_);
  fcntl(fd_, F_SETFL, flags);
  return error;
}

int Watch::Poll() {
  return uv_poll_start(&poll_, ToUvEvents(events_), OnReady);
}

Watch *Watch::Start(Napi::Env env, int fd, short events, bool counter,
                    Napi::Function callback, int *error) {
  int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (own == -1) {
    *error = -errno;
    return nullptr;
  }
  auto *watch = new Watch(env, own, events, counter, callback);
  *error = watch->Init();
  if (*error != 0) {
    close(own);
    delete watch;
    return nullptr;
  }
  // From here on only OnClosed may free it.
  napi_add_async_cleanup_hook(
      env,
      [](napi_async_cleanup_hook_handle, void *data) {
        static_cast<Watch *>(data)->Close();
      },
      watch, &watch->hook_);
  *error = watch->Poll();
  if (*error != 0) {
    watch->Close();
    return nullptr;
  }
  return watch;
}

void Watch::Close() {
  if (closed_)
    return;
  closed_ = true;
  uv_close(reinterpret_cast<uv_handle_t *>(&poll_), OnClosed);
  close(fd_);
}

void Watch::OnClosed(uv_handle_t *handle) {
  auto *watch = static_cast<Watch *>(handle->data);
  Napi::HandleScope scope(watch->env_);
  napi_async_cleanup_hook_handle hook = watch->hook_;
  delete watch;
  napi_remove_async_cleanup_hook(hook);
}

short Watch::Ready() {
  pollfd entry = {fd_, events_, 0};
  return ::poll(&entry, 1, 0) == 1 ? entry.revents : 0;
}

uint64_t Watch::TakeCount() {
  uint64_t count;
  return read(fd_, &count, sizeof count) == sizeof count ? count : 0;
}

void Watch::OnReady(uv_poll_t *poll, int status, int) {
  auto *watch = static_cast<Watch *>(poll->data);
  // libuv stops at POLLERR; poll(2) does not, and says which bits are set.
  if (status < 0)
    watch->Poll();
  if (!watch->counter_) {
    if (short events = watch->Ready())
      watch->Call(events);
    return;
  }
  // The counter is read behind the callback, which then begins sooner. It was 1
  // at least before that, for nobody else reads it (a consumer's side has one
  // owner): if it is more now, it may have been counted up since the callback
  // looked. What is counted from here on is the event loop's next.
  watch->Call(POLLIN);
  if (!watch->closed_ && watch->TakeCount() > 1)
    watch->Call(POLLIN);
}

void Watch::Call(short events) {
  napi_env env = env_;
  Napi::HandleScope scope(env);
  napi_value callback = callback_.Value();
  napi_value ready = nullptr;
  if (!callback || (!counter_ && !(ready = Int32(env, events))))
    return;
  // Not FunctionReference::MakeCallback: it aborts where the callback was
  // stopped rather than left by an exception, as by Worker.terminate().
  napi_make_callback(env, context_, callback, callback, ready ? 1 : 0, &ready,
                     nullptr);
  bool thrown = false;
  napi_value error;
  if (napi_is_exception_pending(env, &thrown) == napi_ok && thrown &&
      napi_get_and_clear_last_exception(env, &error) == napi_ok)
    napi_fatal_exception(env, error);
}

static Napi::Value StartWatchOf(const Napi::CallbackInfo &info, int fd,
                                short events, bool counter,
                                Napi::Value callback) {
  Napi::Env env = info.Env();
  if (!callback.IsFunction()) {
    ThrowType(env, "callback", "a function");
    return Napi::Value();
  }
  int error;
  Watch *watch = Watch::Start(env, fd, events, counter,
                              callback.As<Napi::Function>(), &error);
  if (!watch)
    return Napi::Number::New(env, error);
  auto handle = std::make_unique<WatchHandle>();
  handle->watch = watch;
  auto *state = static_cast<State *>(info.Data());
  return Napi::Number::New(env, state->watches.Add(std::move(handle)));
}

Napi::Value StartWatch(const Napi::CallbackInfo &info) {
  Napi::Env env = info.Env();
  int fd;
  double events;
  if (!GetInt32(env, info[0], "fd", &fd) ||
      !GetInteger(env, info[1], "events", 0, INT16_MAX, &events))
    return Napi::Value();
  if (ToUvEvents(static_cast<short>(events)) == 0) {
    ThrowRange(env, "events", "one or more of POLLIN, POLLPRI and POLLOUT");
    return Napi::Value();
  }
  return StartWatchOf(info, fd, static_cast<short>(events), false, info[2]);
}

Napi::Value StartCounterWatch(const Napi::CallbackInfo &info) {
  int fd;
  if (!GetInt32(info.Env(), info[0], "fd", &fd))
    return Napi::Value();
  return StartWatchOf(info, fd, POLLIN, true, info[1]);
}

/** The watch that the first argument names, or null after an exception. */
static Watch *FindWatch(const Napi::CallbackInfo &info, double *handle) {
  if (!GetInteger(info.Env(), info[0], "handle", 0, INT32_MAX, handle))
    return nullptr;
  WatchHandle *found = static_cast<State *>(info.Data())->watches.Find(*handle);
  if (!found) {
    ThrowRange(info.Env(), "handle", "one of an open watch");
    return nullptr;
  }
  return found->watch;
}

Napi::Value CloseWatch(const Napi::CallbackInfo &info) {
  double handle;
  Watch *watch = FindWatch(info, &handle);
  if (!watch)
    return Napi::Value();
  watch->Close();
  static_cast<State *>(info.Data())->watches.Remove(handle);
  return info.Env().Undefined();
}

Napi::Value RefWatch(const Napi::CallbackInfo &info) {
  double handle;
  if (Watch *watch = FindWatch(info, &handle))
    watch->Ref();
  return info.Env().Undefined();
}

Napi::Value UnrefWatch(const Napi::CallbackInfo &info) {
  double handle;
  if (Watch *watch = FindWatch(info, &handle))
    watch->Unref();
  return info.Env().Undefined();
}
