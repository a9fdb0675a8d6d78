#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

/**
 * Small integers that stand for native objects in JavaScript, as file
 * descriptors do in a process. An integer, unlike a wrapped object, cannot be
 * taken for an object of another type, and costs nothing to pass.
 */
template <typename T> class Handles {
public:
  int Add(std::unique_ptr<T> object) {
    for (size_t i = 0; i < slots_.size(); i++) {
      if (!slots_[i]) {
        slots_[i] = std::move(object);
        return static_cast<int>(i);
      }
    }
    slots_.push_back(std::move(object));
    return static_cast<int>(slots_.size() - 1);
  }

  /** The object behind a handle, or nullptr. */
  T *Find(double handle) const {
    return handle >= 0 && handle < static_cast<double>(slots_.size())
               ? slots_[static_cast<size_t>(handle)].get()
               : nullptr;
  }

  /** Gives up the object behind a handle; the handle becomes free. */
  std::unique_ptr<T> Remove(double handle) {
    return Find(handle) ? std::move(slots_[static_cast<size_t>(handle)])
                        : nullptr;
  }

private:
  std::vector<std::unique_ptr<T>> slots_;
};
