// runtime/src/base/threads.cpp: a thread count into parallel_for: the runtime's pool (oneTBB), or the application's own threads
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
    if (count == 1 || count_ == 1) {  // nothing to share: stay on this thread, wake nobody
      for (int64_t index = 0; index < count; ++index) body(arg, index, 0);
      return;
    }
    Work work{body, arg};
    work.given.store(true, std::memory_order_release);
    spread(arena_, count, Work::run, &work);
    (void)work.done.load(std::memory_order_acquire);
  }

 private:
  // ThreadSanitizer does not see how the library hands work over. These two atomics say the same in a way that it sees: what
  // was written before parallel_for is seen by the body, and what the body wrote is seen after it.
  struct Work {
    attnrt_parallel_body body;
    void* arg;
    std::atomic<bool> given = false;
    std::atomic<int64_t> done = 0;

    static void run(void* self, int64_t index, int32_t worker) {
      auto& work = *static_cast<Work*>(self);
      (void)work.given.load(std::memory_order_acquire);
      work.body(work.arg, index, worker);
      work.done.fetch_add(1, std::memory_order_release);
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

// The tightest quota from this process's cgroup up to the root; 0: none.
double cgroup_cpus() {
  std::ifstream memberships("/proc/self/cgroup");
  double tightest = 0;
  const auto consider = [&tightest](double cpus) {
    if (cpus > 0 && (tightest == 0 || cpus < tightest)) tightest = cpus;
  };
  for (std::string line; std::getline(memberships, line);) {
    const size_t controllers = line.find(':');
    const size_t path_at = line.find(':', controllers + 1);
    if (controllers == std::string::npos || path_at == std::string::npos) continue;
    const std::string names = line.substr(controllers + 1, path_at - controllers - 1);
    std::string path = line.substr(path_at + 1);
    const bool second_version = names.empty();
    if (!second_version && names.find("cpu") == std::string::npos) continue;
    for (;;) {
      if (second_version) {
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
  return tightest;
}

}  // namespace

double cpus_of_cpu_max(const char* text) {
  double quota = 0;
  double period = 0;
  std::istringstream words(text);
  if (!(words >> quota >> period) || quota <= 0 || period <= 0)
    return 0;  // "max 100000", or -1: no quota
  return quota / period;
}

int32_t usable_cpus() {
  cpu_set_t mask;  // asked anew each time: the library below reads it once
  const bool known = sched_getaffinity(0, sizeof mask, &mask) ==
                     0;  // fails only where there are more than 1024 CPUs
  const int32_t cpus = std::max(1, known ? CPU_COUNT(&mask) : tbb::info::default_concurrency());
  const double quota = cgroup_cpus();
  return quota > 0 ? std::clamp(static_cast<int32_t>(std::ceil(quota)), 1, cpus) : cpus;
}

std::unique_ptr<Threads> Threads::pool(int32_t count) {
  // More than the library will ever run get no thread, only its warning on stderr.
  const size_t most =
      tbb::global_control::active_value(tbb::global_control::max_allowed_parallelism);
  const int32_t wanted = count > 0 ? count : usable_cpus();
  return std::make_unique<Pool>(
      std::clamp(static_cast<int32_t>(std::min<size_t>(most, INT32_MAX)), 1, wanted));
}

std::unique_ptr<Threads> Threads::borrowed(int32_t count, attnrt_parallel_for parallel_for,
                                           void* self) {
  return std::make_unique<Borrowed>(count, parallel_for, self);
}

}  // namespace attnrt::core
