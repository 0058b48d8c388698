// runtime/src/base/threads.hpp: parallel_for on the runtime's pool or the application's threads
#pragma once

#include <attnrt/plugin.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace attnrt::core {

// THREADS: parallel_for from any threads at once, but not from inside a body.
class Threads {
 public:
  // A pool of its own threads, which start at the first use and sleep when they are idle.
  // count: how many threads, the caller's included; 0: usable_cpus(). Never more than there are
  // CPUs.
  static std::unique_ptr<Threads> pool(int32_t count);
  // The application's own parallel_for, under the contract of attnrt_parallel_for (plugin.h).
  static std::unique_ptr<Threads> borrowed(int32_t count, attnrt_parallel_for parallel_for,
                                           void* self);

  virtual ~Threads() = default;
  // Calls body(arg, index, worker) once for each index in [0, count), and returns when all calls
  // have returned. Bodies run in the default floating-point environment.
  virtual void parallel_for(int64_t count, attnrt_parallel_body body, void* arg) = 0;
  int32_t count() const { return count_; }

 protected:
  explicit Threads(int32_t count) : count_(count) {}
  int32_t count_;
};

// Returns how many CPUs this process may use: those of its affinity mask, or fewer if its cgroup
// (v2 or v1) has a CPU quota, which is rounded up. At least 1.
int32_t usable_cpus();

// Whether cgroup v1's list of controllers ("cpu,cpuacct") has this name.
bool names_controller(const std::string& names, std::string_view controller);

// Returns the quota in CPUs that the text of a cgroup's cpu.max gives ("200000 100000" is 2), or 0
// if it gives none.
double cpus_of_cpu_max(const char* text);

}  // namespace attnrt::core
