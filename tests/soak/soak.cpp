// tests/soak/soak.cpp: calls without pause while plugins and the policy are swapped and broken
//
//   soak [--seconds N] [--quiet-ms N]
//
// Threads run attention all the time and compare each result. Meanwhile the main thread breaks a
// plugin file or the policy, lets the runtime see that, repairs it with another version, and checks
// that this one serves. Every second swap is seen by reload, the others by the watch. After 50
// swaps each binary that stays mapped was mapped once, so from then on nothing may grow.
#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <sstream>
#include <thread>

#include "run.hpp"
#include "support/sanitized.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using namespace std::chrono_literals;
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int kThreads = 8;
constexpr int kSettled = 50;       // swaps until nothing may grow
constexpr int kFewestSwaps = 100;  // however slow the machine is
// Between two equal states of one process: what the allocator keeps, and stacks of ended threads.
constexpr int64_t kNoiseKilobytes = 8 << 10;
constexpr int64_t kNoiseMappings = 24;
constexpr auto kPatience = 60s;  // until the watch must have seen a change

struct Options {
  std::chrono::seconds time{600};
  std::chrono::milliseconds quiet{500};
};

// What this process holds.
struct Use {
  int64_t kilobytes = 0, mappings = 0, descriptors = 0;
};

Use use_now() {
  Use use;
  malloc_trim(0);
  std::istringstream status(fakes::read_file("/proc/self/status"));
  for (std::string word; status >> word;) {
    if (word == "VmRSS:") status >> use.kilobytes;
  }
  const std::string maps = fakes::read_file("/proc/self/maps");
  use.mappings = std::count(maps.begin(), maps.end(), '\n');
  use.descriptors = static_cast<int64_t>(open_descriptors());
  return use;
}

// Counts what goes wrong, and keeps the first few.
class Failures {
 public:
  void add(const std::string& what) {
    const std::lock_guard lock(mutex_);
    if (++count_ > kShown) return;
    fmt::print("failed: {}\n", what);
    std::fflush(stdout);  // a run that hangs after it is killed, and would keep it
  }
  int64_t count() const {
    const std::lock_guard lock(mutex_);
    return count_;
  }

 private:
  static constexpr int64_t kShown = 20;
  mutable std::mutex mutex_;
  int64_t count_ = 0;
};

// The threads that call all the time.
class Callers {
 public:
  Callers(Runtime& runtime, Failures& failures) : runtime_(runtime), failures_(failures) {
    for (int n = 0; n < kThreads; ++n) threads_.emplace_back([this, n] { call(n); });
  }
  ~Callers() {
    stop_ = true;
    for (auto& thread : threads_) thread.join();
  }
  // Waits until no thread is inside a call or keeps a plan.
  void pause() {
    paused_ = true;
    while (waiting_ < kThreads) std::this_thread::sleep_for(1ms);
  }
  void go_on() {
    paused_ = false;
    while (waiting_ > 0) std::this_thread::sleep_for(1ms);
  }
  int64_t runs() const { return runs_; }

 private:
  void check(const Attention& a, attnrt_status status, const attnrt_error& error) {
    ++runs_;
    if (status != ATTNRT_OK) return failures_.add(error.message);
    const double wrong = largest_error(a.problem, a.args);
    if (!(wrong <= kTolerance)) failures_.add(fmt::format("a result is wrong by {}", wrong));
  }

  // One-shot calls, new plans, and plans of backends that may be gone by now.
  void round(int64_t number, std::deque<std::unique_ptr<Plan>>& kept, Attention& planned) {
    for (const int64_t seq : {1, 7, 20}) {
      Attention a({.seq_q = seq, .seq_kv = 9 + number % 4, .heads_q = 4, .heads_kv = 2},
                  static_cast<uint64_t>(number));
      attnrt_error error = ATTNRT_ERROR_INIT;
      check(a, runtime_.attention(a.problem, a.args, {}, &error), error);
    }
    if (number % 4 == 0) {
      auto plan = runtime_.plan(planned.problem, {});
      if (!plan) return failures_.add(plan.error().message);
      kept.push_back(*std::move(plan));
      constexpr size_t kKept = 4;
      if (kept.size() > kKept) kept.pop_front();
    }
    for (const auto& plan : kept) {
      attnrt_error error = ATTNRT_ERROR_INIT;
      std::fill(planned.out.begin(), planned.out.end(), NAN);
      check(planned, run(*plan, planned.args, &error), error);
    }
  }

  void call(int thread) {
    // The others, of which there are few, come first: so a slow machine makes more swaps.
    setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), 10);
    std::deque<std::unique_ptr<Plan>> kept;
    Attention planned({.seq_q = 5, .seq_kv = 12, .heads_q = 4, .heads_kv = 2});
    for (int64_t number = thread; !stop_; ++number) {
      round(number, kept, planned);
      if (!paused_) continue;
      kept.clear();
      ++waiting_;
      while (paused_ && !stop_) std::this_thread::sleep_for(1ms);
      --waiting_;
    }
  }

  Runtime& runtime_;
  Failures& failures_;
  std::atomic<bool> stop_ = false, paused_ = false;
  std::atomic<int> waiting_ = 0;
  std::atomic<int64_t> runs_ = 0;
  std::vector<std::thread> threads_;
};

// One plugin file, and the versions that it has in turn.
struct Slot {
  std::string file, backend;
  std::vector<fs::path> versions;
  size_t binaries;  // different ones
};

// 10, 10 and 4 binaries stay mapped. Those of fake_unloadable do not. Each binary is probed once.
std::vector<Slot> slots() {
  return {
      {"full.so", "fake_full", {fakes::fake("fake_full")}, 10},
      {"versions.so",
       "fake_versions",
       {fakes::fake("fake_versions-1.0.0"), fakes::fake("fake_versions-1.2.0")},
       10},
      {"unloadable.so", "fake_unloadable", {fakes::fake("fake_unloadable")}, 16},
      {"cpu.so", "cpu", {cpu_plugin()}, 4},
  };
}

// The n-th version of a slot's file. What follows the last section makes other bytes of one plugin.
std::string version_of(const Slot& slot, size_t n) {
  const size_t binary = n % slot.binaries;
  return fakes::read_file(slot.versions[binary % slot.versions.size()]) +
         fmt::format("{:08}", binary);
}

constexpr std::array kFaults = {"truncated", "garbage",         "empty",      "another ABI",
                                "deleted",   "a broken policy", "unknown key"};

class Soak {
 public:
  explicit Soak(Options options) : options_(options), slots_(slots()) {
    for (const Slot& slot : slots_) plugins_.write(slot.file, version_of(slot, 0));
    set_policy(0);
    RuntimeOptions opened;
    opened.policy_path = etc_.text() + "/policy.yaml";
    opened.plugin_path = plugins_.text();
    opened.watch_times = {options.quiet, 10 * options.quiet};
    opened.probe_program = ATTNRT_PROBE;
    if (kSanitized) opened.admission_level = AdmissionLevel::off;  // a probe takes seconds there
    opened.log = [this](int32_t severity, const std::string& line) {
      // A file that is written in place may be found empty first.
      const bool is_failure = line.starts_with("watch: ") && line.find(" is empty") == line.npos;
      if (severity >= ATTNRT_LOG_WARNING && is_failure) ++watch_failures_;
    };
    runtime_ = Runtime::open(std::move(opened)).value();
    callers_ = std::make_unique<Callers>(*runtime_, failures_);
  }

  // Returns the exit status.
  int go() {
    const auto begun = Clock::now();
    auto shown = begun;
    const Use start = measure();
    Use settled = start;
    for (int n = 1; n <= kFewestSwaps || Clock::now() - begun < options_.time; ++n) {
      swap(static_cast<size_t>(n));
      swaps_ = n;
      if (n == kSettled) settled = measure();
      if (unseen_ || failures_.count() > 1000) break;
      if (Clock::now() - shown < 10s) continue;
      shown = Clock::now();
      fmt::print("{:5} s: {} swaps, {} runs, {} failures\n",
                 std::chrono::duration_cast<std::chrono::seconds>(shown - begun).count(), n,
                 callers_->runs(), failures_.count());
      std::fflush(stdout);
    }
    return report(start, settled, measure());
  }

 private:
  // The policies differ in who is first, and whether only after a rollout, in threads, and in what
  // the plan cache may hold.
  void set_policy(size_t n) {
    std::string text = "schema: 1\nwatch: true\nbackends:\n";
    for (size_t i = 0; i < slots_.size(); ++i) {
      const size_t place = (i + n) % slots_.size();
      const bool is_first = place == slots_.size() - 1;
      text += fmt::format("  {}: {{priority: {}{}}}\n", slots_[i].backend, 100 * place,
                          is_first && n % 3 == 1 ? ", rollout: {version: '>=0.1', shadow: 1/2, "
                                                   "canary: 1/3, after: 20}"
                                                 : "");
    }
    text +=
        fmt::format("threads: {}\nplan_cache: {{bytes: {} KiB}}\n", 1 + n / 16 % 3, 1 << n % 12);
    text += fmt::format("admission: {{level: loads, registry: {}/registry}}\n", etc_.text());
    etc_.write(".policy", text);
    fs::rename(etc_.path() / ".policy", etc_.path() / "policy.yaml");
    first_ = slots_[(slots_.size() - 1 - n % slots_.size()) % slots_.size()].backend;
  }

  std::shared_ptr<const FoundPlugin> found(const Slot& slot) const {
    const auto snapshot = runtime_->snapshot();
    for (const auto& plugin : snapshot->found.plugins) {
      if (fs::path(plugin->path).filename() == slot.file) return plugin;
    }
    return nullptr;
  }

  // Lets the runtime see what has changed, and waits until it has.
  template <class Condition>
  void see(bool by_reload, bool may_reload, const std::string& what, Condition&& seen) {
    if (by_reload && runtime_->reload().has_value() != may_reload)
      failures_.add(fmt::format("reload after {}: it {}", what, may_reload ? "fails" : "succeeds"));
    const auto end = Clock::now() + kPatience;
    while (!seen()) {
      if (Clock::now() > end) {
        unseen_ = true;
        return failures_.add("not seen: " + what);
      }
      std::this_thread::sleep_for(1ms);
    }
  }

  void break_it(const Slot& slot, size_t fault, bool by_reload) {
    const std::string what = fmt::format("{}: {}", slot.file, kFaults[fault]);
    const auto file = plugins_.path() / slot.file;
    const bool is_policy = fault >= 5;
    const int64_t failures_before = watch_failures_;
    if (fault == 0) fs::resize_file(file, fs::file_size(file) / 2);
    if (fault == 1) plugins_.write(slot.file, "garbage");
    if (fault == 2) plugins_.write(slot.file, "");
    if (fault == 3) plugins_.write(slot.file, fakes::read_file(fakes::fake("fake_abi_2")));
    if (fault == 4) fs::remove(file);
    if (is_policy) etc_.write("policy.yaml", fault == 5 ? "backends: [\n" : "plugin: {}\n");
    see(by_reload, !is_policy, what, [&] {
      if (is_policy) return by_reload || watch_failures_ > failures_before;
      const auto now = found(slot);
      return fault == 4 ? now == nullptr : now != nullptr && !now->present_fault.empty();
    });
  }

  void swap(size_t n) {
    const Slot& slot = slots_[n % slots_.size()];
    const bool by_reload = n / slots_.size() % 2 == 0;
    break_it(slot, n % kFaults.size(), by_reload);
    const std::string bytes = version_of(slot, n / slots_.size());
    const auto had = found(slot);
    if (n % 2 == 0) {
      plugins_.write(slot.file, bytes);  // in place
    } else {
      plugins_.write(".new", bytes);
      fs::rename(plugins_.path() / ".new", plugins_.path() / slot.file);
    }
    set_policy(n);
    // Its first line tells one policy from the one before.
    see(by_reload, true, fmt::format("{}: version {}", slot.file, n), [&] {
      const auto now = found(slot);
      return now != nullptr && now->present_fault.empty() && now != had &&
             chosen(*runtime_).starts_with(first_);
    });
    for (const RolloutReport& each : runtime_->rollouts()) {
      if (each.phase == Phase::rolled_back)
        failures_.add(fmt::format("{} was rolled back: {}", each.name, each.reason));
    }
    const auto plan = runtime_->plan(kAny, Call{slot.backend});
    if (!plan) return failures_.add(plan.error().message);
    if (const auto now = found(slot);
        now == nullptr || (*plan)->backend().plugin().hash != now->hash)
      failures_.add(slot.file + ": a plan is not on the bytes that were found");
  }

  Use measure() {
    callers_->pause();
    runtime_->trim(0);
    Use use = use_now();
    // A probe that is running holds descriptors until it ends; a leak stays.
    const auto begun = Clock::now();
    const auto may_fall = [&] {
      const auto waited = Clock::now() - begun;
      return waited < 3s || (use.descriptors > fewest_descriptors_ && waited < kPatience);
    };
    while (may_fall()) {
      std::this_thread::sleep_for(50ms);
      use.descriptors = std::min(use.descriptors, use_now().descriptors);
    }
    fewest_descriptors_ = std::min(fewest_descriptors_, use.descriptors);
    callers_->go_on();
    return use;
  }

  int report(const Use& start, const Use& settled, const Use& end) const {
    fmt::print("\n{:<22}{:>12}{:>12}{:>12}{:>12}\n", "", "at start", "after 50", "at end", "noise");
    const auto row = [](const char* name, int64_t a, int64_t b, int64_t c, int64_t noise) {
      fmt::print("{:<22}{:>12}{:>12}{:>12}{:>12}\n", name, a, b, c, noise);
      return c - b <= noise;
    };
    const bool same_memory =
        row("memory (RSS, kB)", start.kilobytes, settled.kilobytes, end.kilobytes, kNoiseKilobytes);
    const bool same_mappings =
        row("mappings", start.mappings, settled.mappings, end.mappings, kNoiseMappings);
    const bool same_descriptors =
        row("descriptors", start.descriptors, settled.descriptors, end.descriptors, 0);
    fmt::print("\n{} swaps, {} runs, {} failures\n", swaps_, callers_->runs(), failures_.count());
    if (kSanitized) fmt::print("memory and mappings are not judged: a sanitizer keeps its own\n");
    const bool grew = !same_descriptors || (!kSanitized && !(same_memory && same_mappings));
    if (grew) fmt::print("failed: the process grew after {} swaps\n", kSettled);
    return failures_.count() > 0 || grew ? 1 : 0;
  }

  const Options options_;
  const std::vector<Slot> slots_;
  fakes::Directory plugins_, etc_;
  std::string first_;  // the backend with the highest priority
  std::atomic<int64_t> watch_failures_ = 0;
  int64_t swaps_ = 0, fewest_descriptors_ = INT64_MAX;
  bool unseen_ = false;  // a change was not seen: each one after it would take as long
  Failures failures_;
  std::unique_ptr<Runtime> runtime_;
  std::unique_ptr<Callers> callers_;
};

int usage() {
  fmt::print(stderr, "usage: soak [--seconds N] [--quiet-ms N]\n");
  return 2;
}

int soak(int count, char** words) {
  Options options;
  for (int i = 1; i + 1 < count; i += 2) {
    const int64_t number = std::atoll(words[i + 1]);
    if (number <= 0) return usage();
    if (std::strcmp(words[i], "--seconds") == 0) {
      options.time = std::chrono::seconds(number);
    } else if (std::strcmp(words[i], "--quiet-ms") == 0) {
      options.quiet = std::chrono::milliseconds(number);
    } else {
      return usage();
    }
  }
  return count % 2 == 0 ? usage() : Soak(options).go();
}

}  // namespace
}  // namespace attnrt::core

int main(int count, char** words) { return attnrt::core::soak(count, words); }
