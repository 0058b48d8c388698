// runtime/src/base/threads.hpp: a thread count into parallel_for: the runtime's pool (oneTBB), or the application's own threads
#pragma once

#include <attnrt/plugin.h>

#include <cstdint>
#include <memory>

namespace attnrt::core {

class Threads {
 public:
  // count 0: what the affinity mask and the cgroup's CPU quota leave; never more than there are CPUs. Threads start at the
  // first use and sleep when idle.
  static std::unique_ptr<Threads> pool(int32_t count);
  // The application's parallel_for; its contract is in plugin.h.
  static std::unique_ptr<Threads> borrowed(int32_t count, attnrt_parallel_for parallel_for,
                                           void* self);

  virtual ~Threads() = default;
  virtual void parallel_for(int64_t count, attnrt_parallel_body body, void* arg) = 0;
  int32_t count() const { return count_; }

 protected:
  explicit Threads(int32_t count) : count_(count) {}
  int32_t count_;
};

// CPUs that this process may use: the affinity mask, cut by the quota of its cgroup (v2 or v1), rounded up; at least 1.
int32_t usable_cpus();
// The quota in CPUs, from the text of cpu.max ("200000 100000"), or 0 where there is none. For usable_cpus and its test.
double cpus_of_cpu_max(const char* text);

}  // namespace attnrt::core
