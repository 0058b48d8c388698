// runtime/src/base/threads.cpp: parallel_for on the runtime's pool or the application's threads
//
// The pool is a oneTBB arena with one slot for each thread, the caller's included. A thread's slot
// number is its worker number, which plugins use to index per-thread memory; an arena gives a slot
// to one thread at a time, so calls with the same worker number never overlap.
//
// How many threads: the policy's count, or else what the process may really use. A container often
// limits CPU time by a cgroup quota instead of the affinity mask, and oneTBB looks only at the
// mask. The quotas of all cgroups up to the root apply, so the smallest one counts.
#include "base/threads.hpp"

#include <sched.h>
#include <tbb/global_control.h>
#include <tbb/info.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>

#include "base/spread.hpp"

namespace attnrt::core {
namespace {

class Pool final : public Threads {
 public:
  explicit Pool(int32_t count) : Threads(count), arena_(count) {}

  void parallel_for(int64_t count, attnrt_parallel_body body, void* arg) override {
    if (count <= 0) return;
    if (count == 1 || count_ == 1) {  // nothing to share, so no other thread is woken
      for (int64_t index = 0; index < count; ++index) body(arg, index, 0);
      return;
    }
    Work work{body, arg};
    work.started.store(true, std::memory_order_release);
    spread(arena_, count, Work::run, &work);
    (void)work.finished.load(std::memory_order_acquire);
  }

 private:
  // ThreadSanitizer cannot see how oneTBB, which is built without it, hands work to other threads.
  // The two atomics state the same order where it can see it: the body sees what was written before
  // parallel_for, and the caller sees afterwards what the body wrote.
  struct Work {
    attnrt_parallel_body body;
    void* arg;
    std::atomic<bool> started = false;
    std::atomic<int64_t> finished = 0;

    static void run(void* self, int64_t index, int32_t worker) {
      auto& work = *static_cast<Work*>(self);
      (void)work.started.load(std::memory_order_acquire);
      work.body(work.arg, index, worker);
      work.finished.fetch_add(1, std::memory_order_release);
    }
  };

  tbb::task_arena arena_;
};

class Borrowed final : public Threads {
 public:
  Borrowed(int32_t count, attnrt_parallel_for function, void* self)
      : Threads(count), function_(function), self_(self) {}
  void parallel_for(int64_t count, attnrt_parallel_body body, void* arg) override {
    if (count > 0) function_(self_, count, body, arg);
  }

 private:
  attnrt_parallel_for function_;
  void* self_;
};

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Returns the smallest quota, in CPUs, of the cgroups from this process's own up to the root, or 0
// if there is none.
double cgroup_cpus() {
  std::ifstream memberships("/proc/self/cgroup");  // lines "hierarchy:controllers:path"
  double smallest = 0;
  const auto consider = [&smallest](double cpus) {
    if (cpus > 0 && (smallest == 0 || cpus < smallest)) smallest = cpus;
  };
  for (std::string line; std::getline(memberships, line);) {
    const size_t controllers = line.find(':');
    const size_t path_at = line.find(':', controllers + 1);
    if (controllers == std::string::npos || path_at == std::string::npos) continue;
    const std::string names = line.substr(controllers + 1, path_at - controllers - 1);
    std::string path = line.substr(path_at + 1);
    const bool is_version_2 = names.empty();
    if (!is_version_2 && names.find("cpu") == std::string::npos) continue;
    for (;;) {
      if (is_version_2) {
        consider(cpus_of_cpu_max(first_line("/sys/fs/cgroup" + path + "/cpu.max").c_str()));
      } else {
        const std::string folder = "/sys/fs/cgroup/cpu" + path;
        const std::string quota = first_line(folder + "/cpu.cfs_quota_us");
        consider(
            cpus_of_cpu_max((quota + " " + first_line(folder + "/cpu.cfs_period_us")).c_str()));
      }
      const size_t slash = path.rfind('/');
      if (slash == std::string::npos) break;
      path.resize(slash);
    }
  }
  return smallest;
}

}  // namespace

double cpus_of_cpu_max(const char* text) {
  double quota = 0;
  double period = 0;
  std::istringstream words(text);
  // Without a quota, version 2 says "max 100000", and version 1 has a quota of -1.
  if (!(words >> quota >> period) || quota <= 0 || period <= 0) return 0;
  return quota / period;
}

int32_t usable_cpus() {
  // Asked each time, since the mask may change; oneTBB reads it only once. The call fails only if
  // the system has more than 1024 CPUs, the size of cpu_set_t.
  cpu_set_t mask;
  const bool known = sched_getaffinity(0, sizeof mask, &mask) == 0;
  const int32_t cpus = std::max(1, known ? CPU_COUNT(&mask) : tbb::info::default_concurrency());
  const double quota = cgroup_cpus();
  return quota > 0 ? std::clamp(static_cast<int32_t>(std::ceil(quota)), 1, cpus) : cpus;
}

std::unique_ptr<Threads> Threads::pool(int32_t count) {
  // oneTBB starts no more threads than this, and warns on stderr if an arena has more slots.
  const size_t limit =
      tbb::global_control::active_value(tbb::global_control::max_allowed_parallelism);
  const int32_t wanted = count > 0 ? count : usable_cpus();
  return std::make_unique<Pool>(
      std::clamp(static_cast<int32_t>(std::min<size_t>(limit, INT32_MAX)), 1, wanted));
}

std::unique_ptr<Threads> Threads::borrowed(int32_t count, attnrt_parallel_for parallel_for,
                                           void* self) {
  return std::make_unique<Borrowed>(count, parallel_for, self);
}

}  // namespace attnrt::core
