// runtime/src/decision_log.cpp: the last decisions that were made, as lines of JSON
#include "decision_log.hpp"

#include <chrono>
#include <iterator>
#include <mutex>
#include <new>
#include <vector>

#include "base/utc.hpp"
#include "trace.hpp"

namespace attnrt::core {

void DecisionLog::add(const Decision& decision, const Services& services) {
  int64_t sequence = 0;
  {
    const std::lock_guard lock(mutex_);
    sequence = ++count_;
  }
  std::shared_ptr<const std::string> text;
  try {
    // "sequence" and "time" first, where people who read the log look for them.
    text = std::make_shared<const std::string>(fmt::format(
        "{{\"sequence\": {}, \"time\": \"{}\", {}", sequence,
        utc_text(std::chrono::system_clock::now()), decision_json(decision).line().substr(1)));
    const std::lock_guard lock(mutex_);
    // Two threads may come here in another order than they got their numbers.
    auto at = lines_.end();
    while (at != lines_.begin() && std::prev(at)->sequence > sequence) --at;
    lines_.insert(at, {sequence, text});
    bytes_ += text->size();
    while (lines_.size() > kMost || (bytes_ > kMostBytes && lines_.size() > 1)) {
      bytes_ -= lines_.front().text->size();
      lines_.pop_front();
    }
  } catch (const std::bad_alloc&) {
    return;
  }
  if (services.logs_decisions) services.log_decision(*text);
}

std::string DecisionLog::lines(int64_t after) const {
  std::vector<Line> found;
  {
    const std::lock_guard lock(mutex_);
    for (const Line& line : lines_) {
      if (line.sequence > after) found.push_back(line);
    }
  }
  std::string text;
  for (const Line& line : found) text += *line.text + '\n';
  return text;
}

int64_t DecisionLog::count() const {
  const std::lock_guard lock(mutex_);
  return count_;
}

}  // namespace attnrt::core
