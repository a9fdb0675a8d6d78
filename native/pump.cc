#include "pump.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

static_assert(sizeof(ring_fault) == 64 && sizeof(ring_header) == 0x1c0,
              "lib/rings/layout.ts says so");

/** Room for this many records at first; it grows when a group needs more. */
static constexpr size_t kFirstRoom = 256, kLastRoom = 1 << 20;
static constexpr uint32_t kResponseInvalid = 1;

std::unique_ptr<Pump> Pump::Make(int fd, std::shared_ptr<Pages> pages,
                                 uint64_t limit, int *error) {
  auto *ring = static_cast<ring_header *>(pages->address);
  auto power = [](uint32_t n) { return n != 0 && (n & (n - 1)) == 0; };
  *error = -EINVAL;
  if (pages->length < RING_HEADER_BYTES || ring->magic != RING_MAGIC ||
      ring->version != RING_VERSION || !power(ring->record_count) ||
      (ring->response_count != 0 && !power(ring->response_count)) ||
      ring->record_bytes < 64 || ring->source_bytes < 8 ||
      ring->source_bytes + 8 > ring->record_bytes)
    return nullptr;
  uint64_t responses =
      ring->records +
      static_cast<uint64_t>(ring->record_count) * ring->record_bytes;
  if (ring->records != RING_HEADER_BYTES || ring->responses != responses ||
      responses + 16ull * ring->response_count > pages->length)
    return nullptr;
  std::unique_ptr<Pump> pump(new Pump(std::move(pages), limit));
  *error = pump->Open(fd);
  return *error == 0 ? std::move(pump) : nullptr;
}

Pump::Pump(std::shared_ptr<Pages> pages, uint64_t limit)
    : pages_(std::move(pages)),
      ring_(static_cast<ring_header *>(pages_->address)), kind_(ring_->kind),
      record_bytes_(ring_->record_bytes), capacity_(ring_->record_count),
      source_bytes_(ring_->source_bytes),
      response_capacity_(ring_->response_count), records_(ring_->records),
      responses_(ring_->responses), limit_(limit), head_(ring_->head),
      response_tail_(ring_->response_tail),
      staging_(kFirstRoom * source_bytes_) {}

int Pump::Open(int fd) {
  fd_ = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  // Reads must not wait: iommufd's never do, a socket's might.
  int flags = fd_ == -1 ? -1 : fcntl(fd_, F_GETFL);
  if (flags == -1 || fcntl(fd_, F_SETFL, flags | O_NONBLOCK) == -1)
    return -errno;
  doorbell_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  kick_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return doorbell_ == -1 || kick_ == -1 ? -errno : 0;
}

Pump::~Pump() {
  Resume();
  if (started_) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      // A consumer in another thread or process would wait for ever.
      End(EBADF);
      stop_ = true;
    }
    Ring(kick_);
    pthread_join(thread_, nullptr);
  }
  for (int fd : {fd_, doorbell_, kick_})
    if (fd != -1)
      close(fd);
}

void Pump::Ring(int fd) {
  uint64_t one = 1;
  // It can fail only where the counter is full, and then it has rung.
  if (write(fd, &one, sizeof one) == -1)
    return;
}

int Pump::Start() {
  if (started_)
    return 0;
  sigset_t all, before;
  sigfillset(&all);
  // Signals are for the thread that expects them.
  pthread_sigmask(SIG_SETMASK, &all, &before);
  auto run = [](void *pump) -> void * {
    static_cast<Pump *>(pump)->Run();
    return nullptr;
  };
  int result = pthread_create(&thread_, nullptr, run, this);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (result != 0)
    return -result;
  started_ = true;
  pthread_setname_np(thread_, "iommufd-pump");
  return 0;
}

int Pump::Pass(bool fill) {
  if (paused_)
    return 0;
  std::lock_guard<std::mutex> lock(mutex_);
  // What was answered may make room for what the file has kept.
  int result = Move(fill || (blocked_ && started_));
  if (sleeps_blocked_ && !blocked_) {
    sleeps_blocked_ = false;
    Ring(kick_);
  }
  return result == 0 && fill && blocked_ ? 1 : result;
}

// Only the JavaScript thread pauses; it holds the mutex meanwhile.
void Pump::Pause() {
  if (paused_)
    return;
  mutex_.lock();
  paused_ = true;
}

void Pump::Resume() {
  if (!paused_)
    return;
  paused_ = false;
  mutex_.unlock();
}

void Pump::Run() {
  bool ended = false;
  for (;;) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (stop_ || Move(true) < 0)
        return;
      // What the file had before it ended comes first.
      if (ended && !blocked_)
        return End(ENODEV);
      sleeps_blocked_ = blocked_;
      __atomic_store_n(&ring_->pump_waiting,
                       blocked_ ? RING_PUMP_WAITS_FOR_ROOM : RING_PUMP_WAITS,
                       __ATOMIC_SEQ_CST);
    }
    short events;
    ended = !MustStayAwake(&events) && Sleep(events);
  }
}

/** The look after saying that it sleeps: see lib/rings/ring.ts. */
bool Pump::MustStayAwake(short *events) {
  std::lock_guard<std::mutex> lock(mutex_);
  bool unsent = sent_ < filled_ * sizeof(Response);
  *events =
      static_cast<short>((blocked_ ? 0 : POLLIN) | (unsent ? POLLOUT : 0));
  uint32_t written = __atomic_load_n(&ring_->response_head, __ATOMIC_SEQ_CST);
  uint32_t tail = __atomic_load_n(&ring_->tail, __ATOMIC_SEQ_CST);
  // What the JavaScript thread moved meanwhile may have made it blocked, or no
  // more: then it has said the wrong thing.
  return (written != response_tail_ && !unsent) ||
         (blocked_ && tail != seen_tail_) || blocked_ != sleeps_blocked_;
}

bool Pump::Sleep(short events) {
  // poll(2) tells of a file's end whether asked or not: one that nobody can
  // read from now is left out.
  pollfd files[] = {{kick_, POLLIN, 0}, {events == 0 ? -1 : fd_, events, 0}};
  while (poll(files, 2, -1) == -1 && errno == EINTR)
    ;
  __atomic_store_n(&ring_->pump_waiting, 0, __ATOMIC_SEQ_CST);
  uint64_t count;
  // There may be nothing in it: whoever rings does not wait for this thread.
  if (files[0].revents != 0 && read(kick_, &count, sizeof count) == -1)
    errno = 0;
  return (files[1].revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
}

void Pump::End(int reason) {
  if (error_ != 0)
    return;
  error_ = reason;
  __atomic_store_n(&ring_->error, static_cast<uint32_t>(reason),
                   __ATOMIC_SEQ_CST);
  ring_publish(ring_, head_);
  // Also for who sleeps for nothing but that.
  Ring(doorbell_);
}

int Pump::Move(bool fill) {
  if (error_ != 0)
    return -error_;
  int result = Flush();
  if (result == 0 && fill)
    result = Fill();
  if (result < 0)
    End(-result);
  return result;
}

uint64_t Pump::Room(bool whole) const {
  uint64_t staging = staging_.size() / source_bytes_;
  if (whole)
    return staging;
  uint32_t used = head_ - __atomic_load_n(&ring_->tail, __ATOMIC_SEQ_CST);
  uint64_t free = used <= capacity_ ? capacity_ - used : 0;
  return std::min({staging, free, limit_ > held_ ? limit_ - held_ : 0});
}

int Pump::Fill() {
  bool whole = false;
  for (;;) {
    seen_tail_ = __atomic_load_n(&ring_->tail, __ATOMIC_SEQ_CST);
    // The consumer's index makes no sense.
    if (head_ - seen_tail_ > capacity_ || (at_ < end_ && !Publish()))
      return -EIO;
    // Before the kernel can give the cookie of a group of nobody to another.
    if (int result = orphans_.empty() ? 0 : Flush())
      return result;
    uint64_t room = at_ < end_ ? 0 : Room(whole);
    blocked_ = room == 0;
    if (blocked_)
      return 0;
    ssize_t length = read(fd_, staging_.data(), room * source_bytes_);
    if (length == -1 && errno == EINTR)
      continue;
    // A read of 0 bytes: empty. EINVAL: what comes first does not fit.
    if (length == 0 || (length == -1 && errno == EAGAIN))
      return 0;
    if (length > 0) {
      if (kind_ == RING_FAULTS && length % source_bytes_ != 0)
        return -EIO;
      whole = false;
      timespec now;
      clock_gettime(CLOCK_MONOTONIC, &now);
      now_ = static_cast<uint64_t>(now.tv_sec) * 1000000000u + now.tv_nsec;
      at_ = group_end_ = 0;
      end_ = static_cast<size_t>(length);
    } else if (errno != EINVAL) {
      return -errno;
    } else if (room * source_bytes_ < staging_.size()) {
      // Where nothing waits for anything, a group may be larger than the
      // limit, and than the ring.
      whole = held_ == 0 && Room(true) > 0 &&
              head_ == __atomic_load_n(&ring_->tail, __ATOMIC_SEQ_CST);
      blocked_ = !whole;
      if (!whole)
        return 0;
    } else if (staging_.size() / source_bytes_ >= kLastRoom) {
      return -EINVAL;
    } else {
      staging_.resize(2 * staging_.size());
    }
  }
}

/** Publishes what has room. False: the consumer's index makes no sense. */
bool Pump::Publish() {
  uint32_t used = head_ - __atomic_load_n(&ring_->tail, __ATOMIC_SEQ_CST);
  if (used > capacity_)
    return false;
  uint32_t head = head_;
  if (kind_ == RING_FAULTS)
    WriteFaults(&head, capacity_ - used);
  else
    WriteEvents(&head, capacity_ - used);
  if (head != head_) {
    head_ = head;
    if (ring_publish(ring_, head))
      Ring(doorbell_);
  }
  return true;
}

int Pump::Flush() {
  for (;;) {
    size_t filled = filled_ * sizeof(Response);
    if (sent_ == filled) {
      if (!Gather())
        return error_ ? -error_ : 0;
      continue;
    }
    ssize_t result = write(
        fd_, reinterpret_cast<uint8_t *>(out_.data()) + sent_, filled - sent_);
    if (result > 0)
      sent_ += static_cast<size_t>(result);
    else if (result == 0)
      return -EIO;
    else if (errno == EAGAIN)
      return 0;
    else if (errno == EINVAL) {
      // Nobody waits for this one any more.
      if (sent_ >= own_)
        __atomic_add_fetch(&ring_->refused, 1, __ATOMIC_SEQ_CST);
      sent_ = (sent_ / sizeof(Response) + 1) * sizeof(Response);
    } else if (errno != EINTR)
      return -errno;
  }
}

/** Takes responses from the ring. False: there are none. */
bool Pump::Gather() {
  filled_ = sent_ = 0;
  for (; !orphans_.empty() && filled_ < kBatch; orphans_.pop_back())
    out_[filled_++] = {orphans_.back(), kResponseInvalid};
  own_ = filled_ * sizeof(Response);
  uint32_t written = __atomic_load_n(&ring_->response_head, __ATOMIC_SEQ_CST);
  if (written - response_tail_ > response_capacity_) {
    End(EIO);
    return false;
  }
  TakeResponses(written);
  __atomic_store_n(&ring_->response_tail, response_tail_, __ATOMIC_SEQ_CST);
  return filled_ > 0;
}
