// runtime/src/base/threads.cpp: parallel_for on the runtime's pool or the application's threads
//
// How many threads: the policy's count, or else what the process may really use. A container often
// limits CPU time by a cgroup quota instead of the affinity mask. The quotas of all cgroups up to
// the root apply, so the smallest one counts.
#include "base/threads.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>

#include "base/floating_point.hpp"
#include "base/pool.hpp"
#include "base/text.hpp"

namespace attnrt::core {
namespace {

class Borrowed final : public Threads {
 public:
  Borrowed(int32_t count, attnrt_parallel_for function, void* self)
      : Threads(count), function_(function), self_(self) {}
  void parallel_for(int64_t count, attnrt_parallel_body body, void* arg) override {
    if (count <= 0) return;
    Lent lent{body, arg};
    function_(self_, count, Lent::run, &lent);
  }

 private:
  // The application's threads have whatever floating-point environment it gave them.
  struct Lent {
    attnrt_parallel_body body;
    void* arg;
    static void run(void* self, int64_t index, int32_t worker) {
      const DefaultFloatingPoint floating_point;
      const Lent& lent = *static_cast<const Lent*>(self);
      lent.body(lent.arg, index, worker);
    }
  };

  attnrt_parallel_for function_;
  void* self_;
};

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Returns how many CPUs the affinity mask leaves. Asked each time, since the mask may change. The
// call fails only if the system has more than 1024 CPUs, the size of cpu_set_t.
int32_t cpus_of_mask() {
  cpu_set_t mask;
  const bool known = sched_getaffinity(0, sizeof mask, &mask) == 0;
  const int64_t cpus = known ? CPU_COUNT(&mask) : sysconf(_SC_NPROCESSORS_ONLN);
  return static_cast<int32_t>(std::clamp<int64_t>(cpus, 1, INT32_MAX));
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
    if (!is_version_2 && !names_controller(names, "cpu")) continue;
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

bool names_controller(const std::string& names, std::string_view controller) {
  const auto all = split(names, ',');
  return std::find(all.begin(), all.end(), controller) != all.end();
}

int32_t usable_cpus() {
  const int32_t cpus = cpus_of_mask();
  const double quota = cgroup_cpus();
  return quota > 0 ? std::clamp(static_cast<int32_t>(std::ceil(quota)), 1, cpus) : cpus;
}

std::unique_ptr<Threads> Threads::pool(int32_t count) {
  return std::make_unique<Pool>(count > 0 ? std::min(count, cpus_of_mask()) : usable_cpus());
}

std::unique_ptr<Threads> Threads::borrowed(int32_t count, attnrt_parallel_for parallel_for,
                                           void* self) {
  return std::make_unique<Borrowed>(count, parallel_for, self);
}

}  // namespace attnrt::core
