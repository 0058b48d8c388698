// runtime/src/plan.hpp: the plan step: prepares the work of one decision
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "select.hpp"

namespace attnrt::core {

class CandidateStats;  // stats.hpp
class Staging;         // staging.hpp

// Memory of the host or of one device, freed by the destructor.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(DeviceMemory&& other) noexcept;
  DeviceMemory& operator=(DeviceMemory&& other) noexcept;
  ~DeviceMemory();
  enum class Kind { host, device, pinned };
  // alignment: a power of two. 0 bytes: no memory, and data() is nullptr.
  // stream: device memory may be used on it, and on streams that wait for it. Without one it may be
  // used on any stream.
  // REQUIRES: all work that uses device memory has completed when it is destroyed.
  static Result<DeviceMemory> allocate(std::shared_ptr<const Backend> backend, const Device& device,
                                       Kind kind, int64_t bytes, int64_t alignment,
                                       std::optional<void*> stream = std::nullopt);
  void* data() const { return static_cast<char*>(data_) + offset_; }
  int64_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<const Backend> backend_;
  int32_t device_type_ = 0, device_id_ = 0;
  Kind kind_ = Kind::host;
  void* data_ = nullptr;       // as it was allocated
  bool applications_ = false;  // from the application's allocator
  size_t offset_ = 0;          // of the first aligned byte
  size_t alignment_ = 64;
  int64_t bytes_ = 0;
};

// OWNERSHIP: owns the plugin's plan, the workspace and the staging buffers; shares the backend,
// which it keeps open.
// THREADS: one run at a time.
class Plan {
 public:
  ~Plan();
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  const Problem& problem() const { return problem_; }                // as it was asked
  const Problem& device_problem() const { return device_problem_; }  // as the backend gets it
  const std::string& backend_name() const { return backend_->manifest().name; }
  const std::string& version() const { return backend_->manifest().version_text; }
  const std::string& kernel() const { return kernel_; }
  const Device& device() const { return device_; }
  const Backend& backend() const { return *backend_; }
  const std::shared_ptr<const Backend>& shared_backend() const { return backend_; }
  // How and why this backend was chosen; what failed before it is in there, too.
  const Decision& decision() const { return *decision_; }
  // Whether run may be captured into a graph.
  bool capturable() const { return capturable_; }
  // What it holds now: the workspace, what the plugin's plan holds, and staging buffers.
  int64_t held_bytes() const;
  // What its runs and what it holds are counted in; nullptr: nothing counts them.
  CandidateStats* stats() const { return stats_.get(); }
  // REQUIRES: called once, before any run.
  void count_in(std::shared_ptr<CandidateStats> stats);
  // Tells the counters what it holds now. REQUIRES: as for a run.
  void count_held_bytes() const;
  int64_t workspace_bytes() const { return workspace_bytes_; }
  int64_t workspace_alignment() const { return workspace_alignment_; }
  void* workspace() const { return workspace_.data(); }
  void* plugin_plan() const { return plugin_plan_; }
  Staging* staging() const { return staging_.get(); }  // nullptr: the tensors are on the device

 private:
  friend Result<std::unique_ptr<Plan>> make_plan(std::shared_ptr<const Decision> decision,
                                                 const Problem& problem,
                                                 std::optional<void*> stream);
  Plan() = default;
  Result<void> make_workspace(const attnrt_plan_info& info, std::optional<void*> stream);

  std::shared_ptr<const Decision> decision_;
  std::shared_ptr<const Backend> backend_;
  Device device_;
  Problem problem_{}, device_problem_{};
  void* plugin_plan_ = nullptr;
  bool planned_ = false;
  bool capturable_ = false;
  int64_t plugin_bytes_ = 0;
  std::string kernel_;
  int64_t workspace_bytes_ = 0;
  int64_t workspace_alignment_ = 64;
  DeviceMemory workspace_;
  std::unique_ptr<Staging> staging_;
  std::shared_ptr<CandidateStats> stats_;
  mutable int64_t counted_bytes_ = 0;  // the part of stats_'s held bytes that is this plan's
};

// Makes the plan of the decision's winner, for the decision's problem or one with larger bounds.
// stream: its first run is on this stream, or on one that waits for it; without one, on any stream.
// REQUIRES: the winner's candidate has a backend. Errors: the plugin's own (UNSUPPORTED,
// OUT_OF_MEMORY, INTERNAL and so on), prefixed with the backend's name.
Result<std::unique_ptr<Plan>> make_plan(std::shared_ptr<const Decision> decision,
                                        const Problem& problem,
                                        std::optional<void*> stream = std::nullopt);

}  // namespace attnrt::core
