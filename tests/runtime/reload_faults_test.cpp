// tests/runtime/reload_faults_test.cpp: each system call of a reload fails in turn
#include <gtest/gtest.h>

#include <new>

#include "fakes/tiny.hpp"
#include "support/sanitized.hpp"
#include "support/test_runtime.hpp"
#include "support/traced_child.hpp"

namespace {
int64_t clock_ahead_seconds = 0;
}

// A file that changed in the last two seconds is read again by every reload. Ahead of time, all are
// settled. (Programs call this function of libc through a pointer that a definition here replaces.)
extern "C" int clock_gettime(clockid_t clock, timespec* time) noexcept {
  const auto result = static_cast<int>(syscall(SYS_clock_gettime, clock, time));
  if (clock == CLOCK_REALTIME) time->tv_sec += clock_ahead_seconds;
  return result;
}

namespace attnrt::core {
namespace {

using namespace support;
using fakes::Tiny;

int64_t breaker_ahead_seconds = 0;

constexpr int kErrors[] = {EMFILE, ENFILE, ENOMEM, EIO, EINTR, ENOSPC, EACCES};

// What a child found; its exit code.
enum Finding : int {
  kGood = 0,
  kNoRuntime,
  kNotServed,          // after the fault
  kNotTheOldSnapshot,  // although the reload failed
  kNoSecondReload,
  kFaultRemains,  // after the second reload
  kNotTheNewVersion,
  kNotTheNewPlugin,
  kDescriptorsLeak,
  kWrongResult,
  kFindings
};
constexpr const char* kTexts[] = {"good",
                                  "no runtime",
                                  "not served after the fault",
                                  "another snapshot, although the reload failed",
                                  "the second reload failed",
                                  "a fault remains after the second reload",
                                  "the new version does not serve",
                                  "the new plugin does not serve",
                                  "descriptors leak",
                                  "wrong result"};
static_assert(std::size(kTexts) == kFindings);

std::string text_of(const TracedChild& child) {
  if (child.signal != 0) return fmt::format("ended by signal {}", child.signal);
  if (child.code < 0 || child.code >= kFindings) return fmt::format("exit code {}", child.code);
  return kTexts[child.code];
}

// A folder with a version that is in use, and another plugin. What is to come lies beside it, on
// the same file system.
struct Folder {
  fakes::Directory plugins, next;
  std::filesystem::path plugin = plugins.path() / "plugin.so", added = plugins.path() / "added.so";

  Folder() {
    plugins.add("fake_versions-1.0.0", "plugin.so");
    plugins.add("fake_minimal", "other.so");
    next.add("fake_versions-1.2.0", "plugin.so");
    next.add("fake_full", "added.so");
  }
  void exchange() const {
    std::filesystem::rename(next.path() / "plugin.so", plugin);
    std::filesystem::rename(next.path() / "added.so", added);
  }
};

Result<std::unique_ptr<Runtime>> open_runtime(const Folder& folder) {
  return Runtime::open({.thread_count = 1,
                        .policy_text = "schema: 1\nunlisted: allow\n"
                                       "backends: {fake_versions: {priority: 10}}\n",
                        .plugin_path = folder.plugins.text(),
                        .log = [](int32_t, const std::string&) {},
                        .clock =
                            [] {
                              return std::chrono::steady_clock::now() +
                                     std::chrono::seconds(breaker_ahead_seconds);
                            }});
}

// Runs attention by a backend, and returns its name and version.
std::string served_by(Runtime& runtime, const char* name = "") {
  try {
    Tiny tiny;
    tiny.problem = check_problem(&tiny.problem).value();
    const std::string chosen_one = chosen(runtime, tiny.problem, name);
    attnrt_error error = ATTNRT_ERROR_INIT;
    if (runtime.attention(tiny.problem, tiny.args, Call{name}, &error) != ATTNRT_OK)
      return error.message;
    return tiny.right() ? chosen_one : "wrong";
  } catch (const std::bad_alloc&) {
    return "bad_alloc";
  }
}

bool reload(Runtime& runtime) {
  try {
    return runtime.reload().has_value();
  } catch (const std::bad_alloc&) {
    return false;  // attnrt_runtime_reload makes it OUT_OF_MEMORY
  }
}

// What must hold when whatever was wrong is over: the next reload finds all that is there.
Finding check_recovered(Runtime& runtime, size_t descriptors) {
  breaker_ahead_seconds = 120;  // a candidate for which memory ran out waits for up to a minute
  if (!reload(runtime)) return kNoSecondReload;
  for (const auto& plugin : runtime.snapshot()->found.plugins) {
    if (!plugin->fault.empty() || !plugin->present_fault.empty()) return kFaultRemains;
  }
  if (served_by(runtime) != "fake_versions 1.2.0") return kNotTheNewVersion;
  if (served_by(runtime, "fake_full") != "fake_full 1.0.0") return kNotTheNewPlugin;
  if (served_by(runtime, "fake_minimal") != "fake_minimal 1.0.0") return kNotTheNewPlugin;
  return open_descriptors() == descriptors ? kGood : kDescriptorsLeak;
}

// The child's work: uses a version, exchanges it, and reloads while calls are counted.
int reload_once(const Folder& folder, int64_t ahead) {
  clock_ahead_seconds = ahead;
  auto opened = open_runtime(folder);
  if (!opened || served_by(**opened) != "fake_versions 1.0.0") return kNoRuntime;
  Runtime& runtime = **opened;
  const size_t descriptors = open_descriptors();
  const auto before = runtime.snapshot();
  folder.exchange();
  begin_calls();
  const bool reloaded = reload(runtime);
  end_calls();
  if (!reloaded && runtime.snapshot() != before) return kNotTheOldSnapshot;
  const std::string serves = served_by(runtime);
  if (serves == "wrong") return kWrongResult;
  if (!serves.starts_with("fake_versions 1.")) return kNotServed;
  return check_recovered(runtime, descriptors);
}

// The child's work: a fresh runtime, whose first call loads a plugin while calls are counted.
int load_once(const Folder& folder, int64_t ahead) {
  clock_ahead_seconds = ahead;
  folder.exchange();
  auto opened = open_runtime(folder);
  if (!opened) return kNoRuntime;
  const size_t descriptors = open_descriptors();
  begin_calls();
  const std::string serves = served_by(**opened);
  end_calls();
  if (serves == "wrong") return kWrongResult;
  return check_recovered(**opened, descriptors);
}

using Work = int (*)(const Folder&, int64_t);

// Interrupts each call of the work in turn. RETURNS how many there are.
int64_t interrupt_each(Work work, int64_t ahead, const std::string& how,
                       const std::function<int(const Folder&)>& act) {
  for (int64_t n = 1;; ++n) {
    const Folder folder;
    const TracedChild child =
        trace([&] { return work(folder, ahead); }, n, [&](long) { return act(folder); });
    EXPECT_EQ(child.code, kGood) << text_of(child) << ": call " << n << " (system call "
                                 << child.interrupted << "): " << how;
    if (child.interrupted < 0) return n - 1;
  }
}

class ReloadFaults : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    if (kSanitized) GTEST_SKIP() << "a sanitizer's own calls would fail, too";
    if (!can_trace()) GTEST_SKIP() << "this system does not let a process trace its children";
  }
};

TEST_P(ReloadFaults, EachCallOfAReloadFails) {
  for (const int error : kErrors) {
    const int64_t calls = interrupt_each(&reload_once, GetParam(), std::strerror(error),
                                         [error](const Folder&) { return error; });
    EXPECT_GT(calls, 60) << "a reload reads three files and loads one";
    EXPECT_LT(calls, 2000);
  }
}

TEST_P(ReloadFaults, EachCallOfALoadFails) {
  for (const int error : kErrors) {
    const int64_t calls = interrupt_each(&load_once, GetParam(), std::strerror(error),
                                         [error](const Folder&) { return error; });
    EXPECT_GT(calls, 20) << "a load copies a file and maps it";
  }
}

// Changes the file that is being exchanged, once before each call. Afterwards the new version is
// put there again, as an operator would.
TEST_P(ReloadFaults, AFileChangesBeforeEachCall) {
  const std::string good = fakes::read_file(fakes::fake("fake_versions-1.2.0"));
  const auto put_back = [&good](const Folder& folder) {
    folder.next.write("again.so", good);
    std::filesystem::rename(folder.next.path() / "again.so", folder.plugin);
  };
  const std::map<std::string, std::function<void(const Folder&)>> changes = {
      {"replaced", put_back},
      {"renamed and back",
       [](const Folder& folder) {
         std::filesystem::rename(folder.plugin, folder.plugins.path() / "away");
         std::filesystem::rename(folder.plugins.path() / "away", folder.plugin);
       }},
      {"unlinked and put back",
       [&](const Folder& folder) {
         std::filesystem::remove(folder.plugin);
         put_back(folder);
       }},
      {"overwritten in place",
       [&](const Folder& folder) { fakes::overwrite_file(folder.plugin, good); }},
      {"touched", [](const Folder& folder) {
         std::filesystem::last_write_time(folder.plugin,
                                          std::filesystem::file_time_type::clock::now());
       }}};
  for (const auto& [how, change] : changes) {
    interrupt_each(&reload_once, GetParam(), how, [&change = change](const Folder& folder) {
      change(folder);
      return 0;
    });
  }
}

// What is taken away while a reload reads it, and stays away.
TEST_P(ReloadFaults, AFileIsLostBeforeEachCall) {
  const std::map<std::string, std::function<void(const Folder&)>> losses = {
      {"unlinked", [](const Folder& folder) { std::filesystem::remove(folder.plugin); }},
      {"truncated",
       [](const Folder& folder) { std::filesystem::resize_file(folder.plugin, 5000); }},
      {"emptied", [](const Folder& folder) { std::filesystem::resize_file(folder.plugin, 0); }}};
  for (const auto& [how, lose] : losses) {
    for (int64_t n = 1;; ++n) {
      const Folder folder;
      const auto body = [&folder, this] {
        clock_ahead_seconds = GetParam();
        auto opened = open_runtime(folder);
        if (!opened || served_by(**opened) != "fake_versions 1.0.0") return kNoRuntime;
        const size_t descriptors = open_descriptors();
        folder.exchange();
        begin_calls();
        reload(**opened);
        end_calls();
        // It is gone, or its last good version serves.
        const std::string serves = served_by(**opened);
        if (serves == "wrong") return kWrongResult;
        if (serves.find(" 1.") == std::string::npos) return kNotServed;
        fakes::Directory again;
        again.add("fake_versions-1.2.0", "plugin.so");
        std::filesystem::rename(again.path() / "plugin.so", folder.plugin);
        return check_recovered(**opened, descriptors);
      };
      const TracedChild child = trace([&] { return static_cast<int>(body()); }, n,
                                      [&](long) {
                                        lose(folder);
                                        return 0;
                                      });
      EXPECT_EQ(child.code, kGood) << text_of(child) << ": call " << n << ": " << how;
      if (child.interrupted < 0) break;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Files, ReloadFaults, ::testing::Values(0, 3600),
                         [](const auto& files) { return files.param == 0 ? "New" : "Settled"; });

}  // namespace
}  // namespace attnrt::core
