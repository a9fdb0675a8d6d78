#pragma once

#include "handles.h"
#include "mapping.h"
#include "memory.h"
#include "watch.h"

/**
 * What the addon keeps for one environment: one per load in the main thread
 * and in each worker, destroyed with it. There is no other state.
 */
struct State {
  Handles<Memory> memories;
  Handles<DeviceMapping> mappings;
  Handles<WatchHandle> watches;
};
