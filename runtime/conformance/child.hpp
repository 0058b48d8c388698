// runtime/conformance/child.hpp: one child process that checks rules, as its parent sees it
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "base/file.hpp"

namespace attnrt::conformance {

// The child's descriptors.
inline constexpr int kRequest = 3, kAnswers = 4, kLibrary = 5;

// Lets the system kill this process when its parent ends. Calls only what is safe after fork.
void die_with(pid_t parent);

// A child process that checks rules, in a process group of its own. The destructor kills the group.
class Child {
 public:
  using Clock = std::chrono::steady_clock;

  // command: the program that calls serve_as_child(), and its arguments.
  // request: what the child reads from descriptor 3.
  // library: an open file that the child gets as descriptor 5; -1: none.
  // Throws std::runtime_error if it cannot be started.
  Child(const std::vector<std::string>& command, const std::string& request, int library);
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() { wait({}); }

  // Returns the next answer. nullopt: the child has ended, the deadline has passed (timed_out is
  // then set), or what came is too long for an answer (is_flooding is then set).
  std::optional<std::string> next_answer(Clock::time_point deadline);

  // Waits until the child has ended. Kills it at the deadline (timed_out is then set), or at once
  // if there is none. RETURNS how it ended.
  std::string wait(std::optional<Clock::time_point> deadline);

  // Returns the first line that the child printed, or "". Lines of "=" that sanitizers begin with
  // are left out.
  std::string printed() const;

  bool timed_out = false;  // it was killed for its time alone
  bool is_flooding = false;
  bool ended_well = true;       // as far as it is known
  bool left_processes = false;  // in its group, when it had ended

 private:
  struct Files {
    core::Descriptor request, answers, output;
  };
  void start(const std::vector<std::string>& command, const Files& files, int library,
             rlim_t file_bytes);

  core::Descriptor answers_, output_;
  pid_t pid_ = 0;
  std::string buffer_, ending_;
};

}  // namespace attnrt::conformance
