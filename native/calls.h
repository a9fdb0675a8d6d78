#pragma once

#include <napi.h>

#include <cstddef>

// Hot system calls, whose structs lie in one piece of memory that the addon
// owns for as long as its environment lives: the call page, laid out as
// lib/kernel.ts says. A call takes no argument and returns nothing: a number
// stored in the page costs JavaScript a tenth of what it costs to pass it.
// Nothing that JavaScript does to its view of the page, such as detaching it,
// moves or frees the memory.

/** Bytes of the call page, and where its parts begin. */
constexpr size_t kCallPageSize = 16384;
constexpr size_t kCallsAt = 16;
constexpr size_t kStructsAt = 4096;

/** callPage(): the ArrayBuffer over the page, which the first call makes. */
Napi::Value CallPage(const Napi::CallbackInfo &info);
/** runCalls(): makes the ioctls that the page describes. */
napi_value RunCalls(napi_env env, napi_callback_info info);
