// runtime/src/warned.hpp: which warnings were given, so that each is given once
#pragma once

#include <cstdint>
#include <mutex>
#include <unordered_set>

#include "base/fork.hpp"

namespace attnrt::core {

// Remembers hashes of at most kMost warnings: about 300 kB. THREADS: any call from any threads at
// once.
class Warned {
 public:
  static constexpr size_t kMost = 8192;
  enum class Answer { first, last, again };

  // Returns `first` for the first call with this hash and `again` for later ones. The call after
  // which no more can be remembered gets `last`; new hashes then get `again`, too.
  Answer note(uint64_t hash) {
    const std::lock_guard lock(mutex_);
    if (hashes_.size() >= kMost || !hashes_.insert(hash).second) return Answer::again;
    return hashes_.size() == kMost ? Answer::last : Answer::first;
  }

  void forget() {
    const std::lock_guard lock(mutex_);
    hashes_.clear();
  }

 private:
  HeldMutex mutex_;
  std::unordered_set<uint64_t> hashes_;
};

}  // namespace attnrt::core
