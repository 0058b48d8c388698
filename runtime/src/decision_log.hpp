// runtime/src/decision_log.hpp: the last decisions that were made, as lines of JSON
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "base/fork.hpp"
#include "select.hpp"
#include "services.hpp"

namespace attnrt::core {

// Decisions are kept as text, because a Decision keeps its backends open.
// THREADS: any call from any threads at once.
class DecisionLog {
 public:
  static constexpr size_t kMost = 1024;                  // lines
  static constexpr size_t kMostBytes = size_t{4} << 20;  // of all lines; the last one stays anyway

  // Adds a decision that no cache gave, and writes its line to the log, if that wants decisions.
  // Where memory runs out, the decision is counted and its line is left out.
  void add(const Decision& decision, const Services& services);

  // Returns the lines of the decisions after number `after`, the oldest first: each is a document
  // of kind "decision" with "sequence" and "time", and ends with '\n'. 0: all that are left.
  std::string lines(int64_t after) const;

  // How many decisions were added; the last one's number.
  int64_t count() const;

 private:
  struct Line {
    int64_t sequence;
    std::shared_ptr<const std::string> text;
  };

  mutable HeldMutex mutex_;
  std::deque<Line> lines_;
  int64_t count_ = 0;
  size_t bytes_ = 0;
};

}  // namespace attnrt::core
