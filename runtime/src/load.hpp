// runtime/src/load.hpp: a found plugin into an open Backend: its table checked, its instance open, its devices known
#pragma once

#include <attnrt/plugin.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/threads.hpp"
#include "discover.hpp"

namespace attnrt::core {

// What the runtime gives to every backend; lives as long as the last backend that got it.
struct Services {
  std::unique_ptr<Threads> threads;
  std::function<void(int32_t severity, const std::string& text)> log;
  std::atomic<int32_t> log_level = ATTNRT_LOG_WARNING;  // below it, what goes to stderr is dropped

  // To be asked before a line is put together: it costs nothing where nobody reads it.
  bool debugs() const { return log_level.load(std::memory_order_relaxed) <= ATTNRT_LOG_DEBUG; }
  bool informs() const { return log_level.load(std::memory_order_relaxed) <= ATTNRT_LOG_INFO; }
};

struct Device {
  int32_t type = ATTNRT_DEVICE_CPU;
  int32_t id = 0;
  std::string arch, name;
  int64_t total_memory_bytes = 0;
};

std::string device_text(const Device& device);  // cpu, rocm:0 gfx1100

using Options = std::vector<std::pair<std::string, std::string>>;

// An open plugin instance. THREADS: as the plugin ABI promises. Closes the instance when the last plan and snapshot let go
// of it; the library itself stays mapped for ever (unloading GPU libraries is known to crash).
class Backend {
 public:
  ~Backend();
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;

  const FoundPlugin& plugin() const { return *plugin_; }
  const Manifest& manifest() const { return *plugin_->manifest; }
  const std::vector<Device>& devices() const { return devices_; }
  const std::string& no_devices_because() const { return no_devices_because_; }
  const attnrt_memory* memory() const { return memory_; }
  const void* extension(const char* id) const;
  void* instance() const { return instance_; }

  // The plugin's calls. An exception that crosses the boundary is INTERNAL, and so is a status that does not exist.
  attnrt_status supports(const Problem& problem, std::vector<std::string>* reasons) const;
  attnrt_status plan(const Problem& problem, attnrt_plan_info* info, void** plan,
                     attnrt_error* error) const;
  attnrt_status run(void* plan, const Problem& problem, const attnrt_args& args,
                    attnrt_error* error) const;
  void plan_destroy(void* plan) const;

  void log(int32_t severity, const std::string& text) const;  // with the backend's name in front

 private:
  friend Result<std::shared_ptr<Backend>> load(std::shared_ptr<const FoundPlugin>, const Options&,
                                               std::shared_ptr<Services>, bool by_path);
  Backend() = default;
  Result<void> open(const Options& options);
  Result<void> find_devices();

  std::shared_ptr<const FoundPlugin> plugin_;
  std::shared_ptr<Services> services_;
  attnrt_host host_{};
  const attnrt_plugin* table_ = nullptr;
  void* instance_ = nullptr;
  bool open_ = false;
  std::vector<Device> devices_;
  std::string no_devices_because_;
  const attnrt_memory* memory_ = nullptr;
};

// by_path: map the file itself (debuggers then see its path) instead of the sealed copy; also done, with a warning, where
// /proc is not mounted. Errors say what is wrong with the plugin.
Result<std::shared_ptr<Backend>> load(std::shared_ptr<const FoundPlugin> plugin,
                                      const Options& options, std::shared_ptr<Services> services,
                                      bool by_path);

}  // namespace attnrt::core
