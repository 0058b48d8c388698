// runtime/conformance/subject.hpp: the plugin under test: its file, table, instance and devices
//
// Calls the plugin directly, without the checks by which the runtime protects itself (load.cpp):
// such checks would hide the very mistakes that the rules look for.
#pragma once

#include <attnrt/plugin.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "backend.hpp"
#include "base/threads.hpp"
#include "conformance/check_rules.hpp"
#include "conformance/process_state.hpp"
#include "discover.hpp"

namespace attnrt::conformance {

struct Trials;

// The host that the plugin under test gets. It keeps what is logged in a list.
class Host {
 public:
  explicit Host(int32_t threads);
  const attnrt_host* get() const { return &host_; }
  std::vector<std::string> log() const;

 private:
  std::unique_ptr<core::Threads> threads_;
  mutable std::mutex mutex_;
  std::vector<std::string> log_;
  attnrt_host host_{};
};

// An instance that open returned. The destructor closes it.
struct Instance {
  const attnrt_plugin* table = nullptr;
  void* value = nullptr;
  bool open = false;                 // open succeeded, so close must be called
  attnrt_status status = ATTNRT_OK;  // of open
  std::string message;

  Instance() = default;
  Instance(Instance&& other) noexcept;
  Instance& operator=(Instance&&) = delete;
  ~Instance();
};

class Subject {
 public:
  Subject(const std::string& path, const Settings& settings, Progress progress);
  ~Subject();

  const std::string path;
  const Settings settings;
  Host host;

  const core::FoundPlugin* file() const { return file_.get(); }  // null: there is no such file
  const core::Manifest& manifest() const { return *file_->manifest; }

  // Each of these is done when it is first asked for, and kept. A rule asks only for what it needs.
  std::string map();  // maps the library. RETURNS "" or the loader's message
  const attnrt_plugin* table() { return map().empty() ? table_ : nullptr; }
  int64_t symbol_bytes() const { return symbol_bytes_; }
  Instance open(const std::vector<attnrt_option>& options = {});
  void* instance();  // the one that all rules share, opened with options()
  std::vector<attnrt_option> options() const;             // those of the settings
  const ProcessState& before() const { return before_; }  // what the process was before map()
  const std::vector<core::Device>& devices();
  const std::string& devices_message();
  attnrt_status devices_status();
  const core::Device& device() { return devices().front(); }  // the one that cases run on
  bool on_cpu() { return device().type == ATTNRT_DEVICE_CPU; }
  const void* extension(const char* id);
  const attnrt_memory* memory() {
    return static_cast<const attnrt_memory*>(extension(ATTNRT_MEMORY));
  }
  // nullptr also on the cpu, where nothing is scheduled, and if a call is missing.
  const attnrt_scheduling* scheduling() {
    const auto* found = static_cast<const attnrt_scheduling*>(extension(ATTNRT_SCHEDULE));
    const bool usable = found != nullptr && !on_cpu() &&
                        ATTNRT_HAS(found, attnrt_scheduling, build) && found->bytes != nullptr &&
                        found->build != nullptr;
    return usable ? found : nullptr;
  }

  attnrt_status supports(const attnrt_problem& problem, std::vector<std::string>* reasons);

  Trials& trials();  // runs all random cases when it is first called
  void report_progress(int64_t done, int64_t all) const {
    if (progress_ && running) progress_(*running, done, all);
  }
  // Tells that a rule is at work, between two reports of progress. THREADS: from any.
  void report_life() const { report_progress(-1, -1); }
  std::function<void()> life() const {
    return [this] { report_life(); };
  }
  const Rule* running = nullptr;  // for report_progress

 private:
  void find_devices();
  Progress progress_;
  std::shared_ptr<const core::FoundPlugin> file_;
  std::shared_ptr<const void> use_;  // of the library, if it is unloadable; the last member to go
  const attnrt_plugin* table_ = nullptr;
  int64_t symbol_bytes_ = 0;
  bool mapped_ = false;
  std::string map_error_;
  ProcessState before_;
  std::unique_ptr<Instance> instance_;
  bool devices_known_ = false;
  attnrt_status devices_status_ = ATTNRT_OK;
  std::string devices_message_;
  std::vector<core::Device> devices_;
  std::unique_ptr<Trials> trials_;
};

}  // namespace attnrt::conformance
