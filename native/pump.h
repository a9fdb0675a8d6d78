#pragma once

#include "memory.h"
#include "ring.h"

#include <napi.h>
#include <pthread.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

/**
 * Moves records from a file into a ring, and responses from the ring into the
 * file: what lib/rings/software-pump.ts does, in a thread of its own. What the
 * JavaScript thread asks for itself (Move) it gets at once, in its own thread;
 * a mutex keeps the two apart.
 */
class Pump {
public:
  /** The ring is in `pages`. Null and a negative errno where there is none. */
  static std::unique_ptr<Pump> Make(int fd, std::shared_ptr<Pages> pages,
                                    uint64_t limit, int *error);
  ~Pump();
  Pump(const Pump &) = delete;
  Pump &operator=(const Pump &) = delete;

  /** What lib/rings/pump.ts says of pass() and, without `fill`, of flush(). */
  int Pass(bool fill);
  /** Has the thread running from now on. 0 or a negative errno. */
  int Start();
  void Pause();
  void Resume();
  void FillSlot(uint32_t device, uint32_t pasid, uint32_t ioasid,
                uint64_t cookie);
  void EmptySlot(uint32_t device, uint32_t pasid);
  bool IsCurrent(uint32_t cookie, uint32_t generation);

  /** eventfds: the consumer's doorbell and the pump's. */
  int doorbell() const { return doorbell_; }
  int kick() const { return kick_; }

private:
  /** Responses of one write(2) at most. */
  static constexpr size_t kBatch = 512;
  struct Slot {
    uint32_t ioasid;
    uint64_t cookie;
    /** Tells it from others that were at its place. */
    uint64_t number;
  };
  struct Group {
    uint32_t generation = 0;
    /** Faults; 0: there is no such group. */
    uint32_t count = 0;
    uint64_t slot = 0;
  };
  /** The kernel's struct iommu_hwpt_page_response. */
  struct Response {
    uint32_t cookie, code;
  };

  Pump(std::shared_ptr<Pages> pages, uint64_t limit);
  int Open(int fd);
  void Run();
  bool MustStayAwake(short *events);
  /** Sleeps until there is something to do. True: the file has ended. */
  bool Sleep(short events);

  int Move(bool fill);
  int Flush();
  bool Gather();
  void TakeResponses(uint32_t written);
  int Fill();
  uint64_t Room(bool whole) const;
  bool Publish();
  void End(int reason);
  void Ring(int fd);

  void WriteFaults(uint32_t *head, uint32_t free);
  void WriteLone(uint32_t *head, uint32_t *free);
  bool BeginGroup(uint32_t free);
  size_t EndOfGroup(size_t at) const;
  void Forget(const Slot *slot);
  void WriteEvents(uint32_t *head, uint32_t free);
  const Slot *FindSlot(uint32_t device, uint32_t pasid);
  void AddGroup(uint32_t cookie, uint32_t count, uint64_t slot);
  void RemoveGroup(Group *group);
  Group *FindGroup(uint32_t cookie, uint32_t generation);

  const std::shared_ptr<Pages> pages_;
  ring_header *const ring_;
  // Copies: what is in the mapping, others can change.
  const uint32_t kind_, record_bytes_, capacity_, source_bytes_;
  const uint32_t response_capacity_, records_, responses_;
  const uint64_t limit_;
  uint32_t head_, response_tail_;

  int fd_ = -1, doorbell_ = -1, kick_ = -1;
  pthread_t thread_;
  bool started_ = false;
  std::mutex mutex_;
  bool paused_ = false;
  bool stop_ = false;
  int error_ = 0;
  /** The file may have records that there is no room for. */
  bool blocked_ = false;
  /** The consumer's index when that was found. */
  uint32_t seen_tail_ = 0;
  /** The thread sleeps without an eye on the file. */
  bool sleeps_blocked_ = false;

  std::map<std::pair<uint32_t, uint32_t>, Slot> slots_;
  uint64_t next_slot_ = 1;
  /** What FindSlot found last. */
  const Slot *last_slot_ = nullptr;
  uint32_t last_device_ = 0, last_pasid_ = 0;
  /** By cookie: the kernel takes the lowest that is free. */
  std::vector<Group> groups_;
  uint64_t held_ = 0;
  uint32_t generation_ = 0;

  std::vector<uint8_t> staging_;
  size_t at_ = 0, end_ = 0, group_end_ = 0;
  const Slot *fallback_ = nullptr;
  uint64_t now_ = 0;

  /** Responses to be written, and how many; bytes written of them. */
  std::array<Response, kBatch> out_;
  size_t filled_ = 0, sent_ = 0, own_ = 0;
  /** Groups of nobody: 'invalid' is their answer. */
  std::vector<uint32_t> orphans_;
};

/** startPump(fd, memory, limit): {handle, doorbell, kick} or -errno. */
Napi::Value MakePump(const Napi::CallbackInfo &info);
/** runPump(pump): 0 or -errno. */
Napi::Value RunPump(const Napi::CallbackInfo &info);
Napi::Value ClosePump(const Napi::CallbackInfo &info);
/** pausePump(pump, paused) */
Napi::Value PausePump(const Napi::CallbackInfo &info);
/** fillSlot(pump, device, pasid, ioasid, cookie) */
Napi::Value FillSlot(const Napi::CallbackInfo &info);
/** emptySlot(pump, device, pasid) */
Napi::Value EmptySlot(const Napi::CallbackInfo &info);
/** passPump(pump, fill): 0 or -errno. */
napi_value PassPump(napi_env env, napi_callback_info info);
/** isCurrentGroup(pump, cookie, generation) */
napi_value IsCurrentGroup(napi_env env, napi_callback_info info);
