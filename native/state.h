#pragma once

#include "descriptors.h"
#include "handles.h"
#include "mapping.h"
#include "memory.h"
#include "pump.h"
#include "watch.h"

/**
 * What the addon keeps for one environment: one per load in the main thread
 * and in each worker, destroyed with it. There is no other state.
 */
struct State {
  /** First, and so destroyed last: what follows may use a descriptor. */
  Descriptors descriptors;
  /** The call page and the buffer over it, once they were asked for. */
  std::shared_ptr<Pages> call_page;
  Napi::Reference<Napi::ArrayBuffer> call_buffer;
  Handles<Memory> memories;
  Handles<DeviceMapping> mappings;
  Handles<WatchHandle> watches;
  Handles<Pump> pumps;
};
