#include "pump.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

// Whose a fault is, which groups wait for an answer, and how records that were
// read come into the ring's slots: what lib/rings/slots.ts, groups.ts and
// intake.ts do.

static constexpr uint32_t kMostGroups = 1u << 26;
/** The kernel has no object of this ID. */
static constexpr uint32_t kNobody = UINT32_MAX;
/** A struct iommu_hwpt_pgfault, and IOMMU_PGFAULT_FLAGS_LAST_PAGE. */
static constexpr size_t kFaultBytes = offsetof(ring_fault, device_cookie);
static constexpr uint32_t kLastPage = 2;

const Pump::Slot *Pump::FindSlot(uint32_t device, uint32_t pasid) {
  // Faults come in bursts from one device.
  if (last_slot_ && device == last_device_ && pasid == last_pasid_)
    return last_slot_;
  auto found = slots_.find({device, pasid});
  // The slot without PASID stands for every PASID of a device whose PASID
  // table is its user's.
  if (found == slots_.end())
    found = slots_.find({device, 0});
  last_slot_ = found == slots_.end() ? nullptr : &found->second;
  last_device_ = device;
  last_pasid_ = pasid;
  return last_slot_;
}

void Pump::FillSlot(uint32_t device, uint32_t pasid, uint32_t ioasid,
                    uint64_t cookie) {
  auto fill = [&] {
    slots_[{device, pasid}] = {ioasid, cookie, next_slot_++};
    last_slot_ = nullptr;
  };
  if (paused_)
    return fill();
  std::lock_guard<std::mutex> lock(mutex_);
  fill();
}

void Pump::EmptySlot(uint32_t device, uint32_t pasid) {
  std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
  if (!paused_)
    lock.lock();
  auto found = slots_.find({device, pasid});
  if (found == slots_.end())
    return;
  for (Group &group : groups_)
    if (group.count != 0 && group.slot == found->second.number)
      RemoveGroup(&group);
  if (kind_ == RING_FAULTS)
    Forget(&found->second);
  slots_.erase(found);
  last_slot_ = nullptr;
}

bool Pump::IsCurrent(uint32_t cookie, uint32_t generation) {
  std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
  if (!paused_)
    lock.lock();
  return FindGroup(cookie, generation) != nullptr;
}

Pump::Group *Pump::FindGroup(uint32_t cookie, uint32_t generation) {
  if (cookie >= groups_.size())
    return nullptr;
  Group *group = &groups_[cookie];
  return group->count != 0 && group->generation == generation ? group : nullptr;
}

void Pump::RemoveGroup(Group *group) {
  held_ -= group->count;
  group->count = 0;
}

// In place of what had the cookie: that one the kernel has answered itself.
void Pump::AddGroup(uint32_t cookie, uint32_t count, uint64_t slot) {
  if (cookie >= kMostGroups)
    return End(EIO);
  if (cookie >= groups_.size())
    groups_.resize(std::max<size_t>(cookie + 1, 2 * groups_.size()));
  held_ += count;
  held_ -= groups_[cookie].count;
  groups_[cookie] = {++generation_, count, slot};
}

/** Those up to `written` that some group waits for are to be sent. */
void Pump::TakeResponses(uint32_t written) {
  // Copies, as in WriteLone.
  auto *responses = reinterpret_cast<const ring_response *>(
      static_cast<uint8_t *>(pages_->address) + responses_);
  const uint32_t mask = response_capacity_ - 1, first = response_tail_;
  Group *groups = groups_.data();
  const size_t known = groups_.size();
  Response *const begin = out_.data() + filled_, *to = begin;
  Response *const end = out_.data() + kBatch;
  uint64_t answered = 0;
  uint32_t index = first;
  for (; index != written && to != end; index++) {
    const ring_response *response = &responses[index & mask];
    // Once: the other side may write it.
    uint32_t cookie =
        __atomic_load_n(&response->group_cookie, __ATOMIC_RELAXED);
    if (cookie >= known)
      continue;
    Group *group = &groups[cookie];
    uint32_t faults = group->count;
    if (faults == 0 || group->generation != response->generation)
      continue;
    answered += faults;
    group->count = 0;
    to->cookie = cookie;
    to->code = response->code;
    to++;
  }
  held_ -= answered;
  response_tail_ = index;
  uint32_t taken = static_cast<uint32_t>(to - begin);
  filled_ += taken;
  if (taken != index - first)
    __atomic_add_fetch(&ring_->refused, index - first - taken,
                       __ATOMIC_SEQ_CST);
}

/** As in struct iommu_hwpt_pgfault, within the first 40 bytes of a record. */
static const ring_fault *Source(const std::vector<uint8_t> &staging,
                                size_t at) {
  return reinterpret_cast<const ring_fault *>(staging.data() + at);
}

size_t Pump::EndOfGroup(size_t at) const {
  uint32_t cookie = Source(staging_, at)->group_cookie;
  do
    at += source_bytes_;
  while (at < end_ && Source(staging_, at)->group_cookie == cookie);
  return at;
}

/** The attach has ended, and the kernel has answered its faults. */
void Pump::Forget(const Slot *slot) {
  if (at_ < group_end_ && fallback_ == slot)
    at_ = group_end_;
  // What has not begun must not become the next attach's.
  for (size_t at = std::max(at_, group_end_); at < end_;) {
    size_t end = EndOfGroup(at);
    const ring_fault *last = Source(staging_, end - source_bytes_);
    bool forgotten = FindSlot(last->dev_id, last->pasid) == slot;
    for (; at < end; at += source_bytes_)
      if (forgotten)
        memcpy(staging_.data() + at + offsetof(ring_fault, dev_id), &kNobody,
               sizeof kNobody);
  }
}

bool Pump::BeginGroup(uint32_t free) {
  uint32_t cookie = Source(staging_, at_)->group_cookie;
  size_t end = EndOfGroup(at_);
  const ring_fault *last = Source(staging_, end - source_bytes_);
  fallback_ = FindSlot(last->dev_id, last->pasid);
  uint32_t count = 0;
  for (size_t at = at_; at < end; at += source_bytes_) {
    const ring_fault *fault = Source(staging_, at);
    if (fallback_ || FindSlot(fault->dev_id, fault->pasid))
      count++;
  }
  if (count > free && (count <= capacity_ || free < capacity_))
    return false;
  group_end_ = end;
  AddGroup(cookie, count, fallback_ ? fallback_->number : 0);
  if (count == 0)
    orphans_.push_back(cookie);
  return true;
}

/**
 * Groups of one with cookies that were there before, of the device that came
 * last: nearly all. Up to the first of another kind, which is BeginGroup's.
 */
void Pump::WriteLone(uint32_t *head, uint32_t *free) {
  const Slot *slot = last_slot_;
  if (!slot || source_bytes_ != kFaultBytes ||
      record_bytes_ != sizeof(ring_fault))
    return;
  // Copies: stores into the ring could change members, for all a compiler
  // knows.
  const uint8_t *at = staging_.data() + at_, *end = staging_.data() + end_;
  auto *records = reinterpret_cast<ring_fault *>(
      static_cast<uint8_t *>(pages_->address) + records_);
  const uint32_t device = last_device_, pasid = last_pasid_;
  const uint32_t mask = capacity_ - 1, first = *head;
  const uint32_t last = first + *free;
  const uint64_t cookie = slot->cookie, number = slot->number, now = now_;
  const uint32_t ioasid = slot->ioasid;
  Group *groups = groups_.data();
  const size_t known = groups_.size();
  uint32_t index = first, generation = generation_;
  uint64_t replaced = 0;
  for (; at < end && index != last; at += kFaultBytes, index++) {
    auto *source = reinterpret_cast<const ring_fault *>(at);
    uint32_t group = source->group_cookie;
    if (!(source->flags & kLastPage) || source->dev_id != device ||
        source->pasid != pasid || group >= known)
      break;
    replaced += groups[group].count;
    groups[group] = {++generation, 1, number};
    ring_fault *to = &records[index & mask];
    for (size_t i = 0; i < kFaultBytes; i += sizeof(uint64_t))
      memcpy(reinterpret_cast<uint8_t *>(to) + i, at + i, sizeof(uint64_t));
    to->device_cookie = cookie;
    to->ioasid = ioasid;
    to->generation = generation;
    to->timestamp = now;
  }
  at_ = group_end_ = static_cast<size_t>(at - staging_.data());
  generation_ = generation;
  held_ += index - first - replaced;
  *free -= index - first;
  *head = index;
}

void Pump::WriteFaults(uint32_t *head, uint32_t free) {
  uint8_t *records = static_cast<uint8_t *>(pages_->address) + records_;
  while (at_ < end_) {
    if (at_ == group_end_) {
      WriteLone(head, &free);
      if (at_ == end_ || !BeginGroup(free))
        return;
    }
    for (; at_ < group_end_; at_ += source_bytes_) {
      const ring_fault *source = Source(staging_, at_);
      const Slot *slot = FindSlot(source->dev_id, source->pasid);
      if (!slot)
        slot = fallback_;
      if (!slot)
        continue;
      if (free == 0)
        return;
      auto *to = reinterpret_cast<ring_fault *>(
          records +
          static_cast<size_t>(*head & (capacity_ - 1)) * record_bytes_);
      memcpy(static_cast<void *>(to), source, source_bytes_);
      to->device_cookie = slot->cookie;
      to->ioasid = slot->ioasid;
      to->generation = generation_;
      to->timestamp = now_;
      ++*head;
      free--;
    }
  }
}

void Pump::WriteEvents(uint32_t *head, uint32_t free) {
  uint8_t *records = static_cast<uint8_t *>(pages_->address) + records_;
  for (; free > 0 && at_ < end_; free--) {
    // IOMMU_VEVENTQ_FLAG_LOST_EVENTS: a header alone.
    size_t length = staging_[at_] & 1 ? 8 : source_bytes_;
    uint8_t *to =
        records + static_cast<size_t>(*head & (capacity_ - 1)) * record_bytes_;
    memset(to, 0, record_bytes_);
    memcpy(to, staging_.data() + at_, std::min(length, end_ - at_));
    memcpy(to + record_bytes_ - sizeof now_, &now_, sizeof now_);
    at_ += length;
    ++*head;
  }
}
