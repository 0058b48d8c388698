// tests/support/test_runtime.hpp: a runtime on fake plugins, with its log and its files
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "fakes/fake.h"
#include "fakes/fakes.hpp"
#include "runtime.hpp"
#include "tensors.hpp"

namespace attnrt::core::support {

// The cpu plugin of this build.
inline std::filesystem::path cpu_plugin() {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(ATTNRT_BUILD_DIR)) {
    const auto& path = entry.path();
    if (path.filename() == "cpu.so" && path.parent_path().parent_path().filename() == "attnrt")
      return path;
  }
  throw std::runtime_error("no lib/attnrt/plugins/cpu.so below " ATTNRT_BUILD_DIR);
}

inline Problem checked(const Problem& problem) { return check_problem(&problem).value(); }

// Sets an environment variable until it is destroyed.
class Variable {
 public:
  Variable(std::string name, const std::string& value) : name_(std::move(name)) {
    setenv(name_.c_str(), value.c_str(), 1);
  }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;
  ~Variable() { unsetenv(name_.c_str()); }

 private:
  std::string name_;
};

// A runtime in a directory of its own. backends: names of fakes, or "cpu"; the first has the
// highest priority, unless the policy says otherwise.
class TestRuntime {
 public:
  explicit TestRuntime(const std::vector<std::string>& backends, const std::string& policy = {},
                       RuntimeOptions options = {}) {
    for (const auto& name : backends) {
      if (name == "cpu") {
        plugins.copy(cpu_plugin(), "cpu.so");
      } else {
        plugins.add(name);
      }
    }
    std::string text = "unlisted: allow\n";
    if (policy.find("backends:") == std::string::npos) {
      int64_t priority = 100 * static_cast<int64_t>(backends.size());
      if (!backends.empty()) text += "backends:\n";
      for (const auto& name : backends) {
        if (name.find('-') != std::string::npos) continue;  // one of several versions of a backend
        text += fmt::format("  {}: {{priority: {}}}\n", name, priority);
        priority -= 100;
      }
    }
    set_policy(text + policy);
    if (!options.policy_path && !options.policy_text) options.policy_path = policy_file();
    if (!options.plugin_path) options.plugin_path = plugins.text();
    if (options.thread_count == 0) options.thread_count = 1;
    if (!options.log) {
      options.log = [this](int32_t severity, const std::string& line) {
        const std::lock_guard lock(mutex_);
        log_.push_back(fmt::format("{}: {}", severity, line));
      };
    }
    auto opened = Runtime::open(std::move(options));
    if (!opened) throw std::runtime_error(opened.error().message);
    runtime_ = *std::move(opened);
  }

  Runtime& operator*() const { return *runtime_; }
  Runtime* operator->() const { return runtime_.get(); }
  void close() { runtime_.reset(); }

  std::string policy_file() const { return (files.path() / "policy.yaml").string(); }
  void set_policy(const std::string& text) const { files.write("policy.yaml", text); }

  std::vector<std::string> log() const {
    const std::lock_guard lock(mutex_);
    return log_;
  }
  void clear_log() {
    const std::lock_guard lock(mutex_);
    log_.clear();
  }

  // The counters of the fake that serves the problem.
  fake_counters& counters(const Problem& problem, const std::string& name = {}) const {
    const auto decision = runtime_->decide(problem, Call{name});
    const Verdict* winner = decision->winner();
    if (winner == nullptr) throw std::runtime_error(decision->message);
    const void* found = winner->candidate.backend->extension(FAKE_COUNTERS);
    if (found == nullptr) throw std::runtime_error("no counters");
    return *const_cast<fake_counters*>(static_cast<const fake_counters*>(found));
  }

  fakes::Directory plugins;

 private:
  fakes::Directory files;
  mutable std::mutex mutex_;
  std::vector<std::string> log_;
  std::unique_ptr<Runtime> runtime_;
};

inline const Problem kAny = checked(Attention({.seq_q = 2, .seq_kv = 3}).problem);

// Which backend serves the problem ("fake_full 1.0.0"), or the error if none does.
inline std::string chosen(Runtime& runtime, const Problem& problem = kAny,
                          const std::string& name = {}) {
  const auto plan = runtime.plan(problem, Call{name});
  return plan ? (*plan)->backend_name() + " " + (*plan)->version() : plan.error().message;
}

// How many descriptors this process has open.
inline size_t open_descriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd"))
    ++count;
  return count;
}

}  // namespace attnrt::core::support
