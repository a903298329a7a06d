// Streams that hold as much as they do in hardware: who writes to a full one waits, as who reads from an empty one does.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>

namespace hls {

template <class T>
class stream {
 public:
  stream() {}
  explicit stream(const char *) {}
  void bound(unsigned depth) { depth_ = depth; }
  T read() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return !held_.empty(); });
    const T first = held_.front();
    held_.pop_front();
    changed_.notify_all();
    return first;
  }
  void write(const T &last) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return held_.size() < depth_; });
    held_.push_back(last);
    changed_.notify_all();
  }
  bool empty() {
    std::unique_lock<std::mutex> lock(mutex_);
    return held_.empty();
  }

 private:
  unsigned depth_ = 2;
  std::deque<T> held_;
  std::mutex mutex_;
  std::condition_variable changed_;
};

}  // namespace hls
