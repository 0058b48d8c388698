// runtime/src/backend.hpp: an open plugin: its devices, and its calls
#pragma once

#include <attnrt/plugin.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/fork.hpp"
#include "base/plugin_call.hpp"
#include "discover.hpp"
#include "services.hpp"

namespace attnrt::core {

struct Device {
  int32_t type = ATTNRT_DEVICE_CPU;
  int32_t id = 0;
  std::string arch, name;
  int64_t total_memory_bytes = 0;  // 0: not known
};

std::string device_text(const Device& device);  // "cpu", "rocm:0 gfx1100"

// What the policy passes to a plugin's open: keys and values, in the order of the file.
using Options = std::vector<std::pair<std::string, std::string>>;

// What attnrt.merge/1 takes.
struct MergeArgs {
  int32_t device_id = 0;
  std::span<const attnrt_tensor> outs, lses;
  attnrt_tensor out{}, lse{};
  void* stream = nullptr;
};

// One instance of a plugin.
//
// OWNERSHIP: shared by snapshots and plans; the destructor closes the instance, then lets go of the
// library (library.hpp).
// THREADS: open and find_devices once, by load; all other calls as the plugin ABI promises.
class Backend {
 public:
  // REQUIRES: the table has been checked against the plugin's manifest.
  // library: what keeps an unloadable library mapped; nullptr: it stays mapped in any case.
  Backend(std::shared_ptr<const FoundPlugin> plugin, const attnrt_plugin& table,
          std::shared_ptr<Services> services, std::shared_ptr<const void> library = nullptr);
  ~Backend();
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;

  // Makes the instance. The backend must stay where it is from now on: the plugin keeps a pointer
  // to its host struct.
  Result<void> open(const Options& options);
  // Asks the open instance for its devices and, if there are any besides the cpu, for
  // attnrt.memory/1.
  Result<void> find_devices();

  const FoundPlugin& plugin() const { return *plugin_; }
  const Manifest& manifest() const { return *plugin_->manifest; }
  int32_t abi_minor() const { return table_->abi_minor; }  // that the plugin was built for
  const std::vector<Device>& devices() const { return devices_; }
  const std::string& no_device_reason() const { return no_device_reason_; }  // if it has none
  const std::string& devices_note() const { return devices_note_; }  // what it says of those it has
  // The extensions, if the backend offers them with every call that they must have; else nullptr.
  // Their functions are called through call().
  const attnrt_memory* memory() const { return memory_; }
  // A stream of this device on which only the runtime works; made by the first call, destroyed with
  // the backend. The default stream if none can be made.
  void* own_stream(int32_t device_id) const;
  const attnrt_timing* timing() const;
  const attnrt_scheduling* scheduling() const;
  const void* extension(const char* id) const;
  void* instance() const { return instance_; }
  const Services& services() const { return *services_; }
  // Whether a call has said that a device no longer works.
  bool lost_device() const { return lost_device_.load(std::memory_order_relaxed); }

  // Makes one call into the plugin, as call_plugin does. In a child made by fork nothing is called
  // if a device was opened before the fork, since contexts of devices do not survive it: the status
  // is UNSUPPORTED, so that another backend may be tried.
  template <class Call>
  attnrt_status call(attnrt_error* error, Call&& call) const {
    if (on_device_ && generation_ != fork_generation()) return refuse_after_fork(error);
    const attnrt_status status = call_plugin(error, call);
    if (status == ATTNRT_DEVICE_LOST) lost_device_.store(true, std::memory_order_relaxed);
    return status;
  }

  // The plugin's calls. If one throws, or returns a status that does not exist, the status is
  // INTERNAL. supports throws std::bad_alloc if memory ran out while it was asked.
  attnrt_status supports(const Problem& problem, std::vector<std::string>* reasons) const;
  attnrt_status plan(const Problem& problem, attnrt_plan_info* info, void** plan,
                     attnrt_error* error) const;
  attnrt_status run(void* plan, const Problem& problem, const attnrt_args& args,
                    attnrt_error* error) const;
  void plan_destroy(void* plan) const;
  // REQUIRES: extension is one of this backend.
  attnrt_status merge(const attnrt_merging& extension, const MergeArgs& args,
                      attnrt_error* error) const;
  attnrt_status schedule_bytes(const attnrt_scheduling& extension, void* plan,
                               const Problem& problem, int64_t* bytes, attnrt_error* error) const;
  attnrt_status build_schedule(const attnrt_scheduling& extension, void* plan,
                               const Problem& problem, const attnrt_args& args,
                               attnrt_error* error) const;

  void log(int32_t severity, const std::string& text) const;  // prefixed with the backend's name

 private:
  Result<void> add_devices();
  void drop_devices_outside_manifest();
  attnrt_status refuse_after_fork(attnrt_error* error) const;

  const std::shared_ptr<const void> library_;  // first, so that it goes last
  const std::shared_ptr<const FoundPlugin> plugin_;
  const std::shared_ptr<Services> services_;
  const attnrt_plugin* const table_;
  attnrt_host host_{};
  void* instance_ = nullptr;
  bool open_ = false;
  std::vector<Device> devices_;
  std::string no_device_reason_, devices_note_;
  const attnrt_memory* memory_ = nullptr;
  mutable ResetMutex own_streams_mutex_;          // nothing of a device is used in a child
  mutable std::map<int32_t, void*> own_streams_;  // by device_id
  bool on_device_ = false;                        // it has a device besides the cpu
  const uint32_t generation_ = fork_generation();
  mutable std::atomic<bool> lost_device_{false};
};

}  // namespace attnrt::core
