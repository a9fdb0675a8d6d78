#pragma once

#include <napi.h>
#include <uv.h>

/**
 * One standing interest in a file descriptor, on the environment's own event
 * loop. libuv owns it from Start on and frees it when its handle has closed,
 * which the end of the environment waits for.
 */
class Watch {
public:
  /**
   * Null and the libuv error (a -errno) where the file cannot be polled. With
   * `counter` the file is an eventfd, and the callback is called when it was
   * counted up, without an argument; it is read behind that.
   */
  static Watch *Start(Napi::Env env, int fd, short events, bool counter,
                      Napi::Function callback, int *error);

  /** Stops the callbacks and lets go of the file now. */
  void Close();
  void Ref() { uv_ref(reinterpret_cast<uv_handle_t *>(&poll_)); }
  void Unref() { uv_unref(reinterpret_cast<uv_handle_t *>(&poll_)); }

private:
  Watch(Napi::Env env, int fd, short events, bool counter,
        Napi::Function callback);

  int Init();
  /** The events that are there; 0 if they are gone. */
  short Ready();
  /** The eventfd's counter, which is 0 from then on. */
  uint64_t TakeCount();
  void Call(short events);
  int Poll();
  static void OnReady(uv_poll_t *poll, int status, int events);
  static void OnClosed(uv_handle_t *handle);

  Napi::Env env_;
  Napi::FunctionReference callback_;
  // Node keeps an async resource it is given only weakly: collected, it would
  // take the callback's async context (AsyncLocalStorage) along.
  Napi::ObjectReference resource_;
  Napi::AsyncContext context_;
  napi_async_cleanup_hook_handle hook_ = nullptr;
  uv_poll_t poll_{};
  // A descriptor of our own: libuv allows one watch for each.
  const int fd_;
  const short events_;
  const bool counter_;
  bool closed_ = false;
};

/** JavaScript's hold on a watch; the watch itself may outlive it by a turn. */
struct WatchHandle {
  Watch *watch;
};

/** watch(fd, events, callback): a handle, or -errno. */
Napi::Value StartWatch(const Napi::CallbackInfo &info);
/** watchCounter(fd, callback): likewise, of an eventfd that is read. */
Napi::Value StartCounterWatch(const Napi::CallbackInfo &info);
Napi::Value CloseWatch(const Napi::CallbackInfo &info);
Napi::Value RefWatch(const Napi::CallbackInfo &info);
Napi::Value UnrefWatch(const Napi::CallbackInfo &info);
