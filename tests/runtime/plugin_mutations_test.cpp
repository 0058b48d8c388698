// tests/runtime/plugin_mutations_test.cpp: a thousand damaged plugins, each in a host of its own
//
// Nearly all are refused by the checks of formats/elf_*.cpp. No check of a file can find a pointer
// within the library that is the wrong one, so a few kill a host without a probe, or give it wrong
// results: 1 of 1,000 with g++ 12 and ld 2.40 (113 without those checks). Each of them must be
// stopped by a probe. A probe takes too long to begin with it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fakes/tiny.hpp"
#include "support/elf_mutations.hpp"
#include "support/sanitized.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using fakes::Tiny;

constexpr unsigned kSeconds = 60;  // after which a host counts as hung
constexpr int kMostUnprobed = 10;  // that the checks of a file may let through, of 1,000

// How a host with a damaged plugin ended.
enum class End { served, refused, failed, wrong, died, hung };
constexpr const char* kEnds[] = {"served", "refused", "failed", "wrong", "died", "hung"};

// Scans, lists, and runs attention: by the damaged plugin if it still is a candidate, else by the
// other one.
End use(const fakes::Directory& plugins, AdmissionLevel level) {
  auto runtime = Runtime::open(
      {.thread_count = 1,
       .policy_text =
           fmt::format("schema: 1\nunlisted: allow\nbackends: {{fake_minimal: {{priority: -1}}}}\n"
                       "admission: {{registry: {}/registry}}\n",
                       plugins.text()),
       .plugin_path = plugins.text(),
       .log = [](int32_t, const std::string&) {},
       .admission_level = level,
       .probe_program = ATTNRT_PROBE});
  if (!runtime) return End::failed;
  (*runtime)->plugins(false, Probes::Wait::until_done);
  Tiny tiny;
  tiny.problem = check_problem(&tiny.problem).value();
  std::string name;
  if (const auto plan = (*runtime)->plan(tiny.problem, {})) name = (*plan)->backend_name();
  attnrt_error error = ATTNRT_ERROR_INIT;
  if ((*runtime)->attention(tiny.problem, tiny.args, {}, &error) != ATTNRT_OK) return End::failed;
  if (!tiny.right()) return End::wrong;
  return name == "fake_minimal" ? End::refused : End::served;
}

// Does the same in a child process, whose exit includes the library's finalisers.
End use_in_child(const fakes::Directory& plugins, AdmissionLevel level = AdmissionLevel::off) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    const rlimit none{0, 0};
    setrlimit(RLIMIT_CORE, &none);
    const int sink = open("/dev/null", O_WRONLY);
    dup2(sink, STDOUT_FILENO);
    dup2(sink, STDERR_FILENO);
    alarm(kSeconds);
    std::exit(100 + static_cast<int>(use(plugins, level)));
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status)) return WTERMSIG(status) == SIGALRM ? End::hung : End::died;
  const int code = WEXITSTATUS(status) - 100;
  return code < 0 || code > static_cast<int>(End::wrong) ? End::died : static_cast<End>(code);
}

struct Report {
  std::map<End, int> count;
  std::map<std::string, int> bad;  // "segments: p_vaddr: died"
  int unprobed = 0;                // that did harm without a probe
  std::string details;
};

Report mutate_often(const std::filesystem::path& plugin, int mutations) {
  const std::string good = fakes::read_file(plugin);
  const ElfLayout layout(good);
  const fakes::Directory plugins;
  plugins.add("fake_minimal");
  Report report;
  for (int seed = 0; seed < mutations; ++seed) {
    const Mutation mutation = mutate(good, layout.fields(), static_cast<uint64_t>(seed));
    plugins.write("damaged.so", mutation.bytes);
    End end = use_in_child(plugins);
    if (end == End::died || end == End::wrong || end == End::hung) {
      ++report.unprobed;
      end = use_in_child(plugins, AdmissionLevel::conforms);
    }
    ++report.count[end];
    if (end == End::served || end == End::refused) continue;
    const char* how = kEnds[static_cast<int>(end)];
    ++report.bad[fmt::format("{}: {}: {}", mutation.table, mutation.field, how)];
    report.details += fmt::format("  {}: seed {}: {}\n", how, seed, mutation.what);
  }
  fmt::print("{} mutations of {}:", mutations, plugin.filename().string());
  for (const auto& [end, count] : report.count)
    fmt::print(" {} {}", count, kEnds[static_cast<int>(end)]);
  fmt::print(", {} did harm without a probe\n", report.unprobed);
  for (const auto& [what, count] : report.bad) fmt::print("  {:3} {}\n", count, what);
  return report;
}

void expect_survival(Report report) {
  EXPECT_EQ(report.count[End::died], 0) << report.details;
  EXPECT_EQ(report.count[End::wrong], 0) << report.details;
  EXPECT_LE(report.unprobed, kMostUnprobed);
  EXPECT_EQ(report.count[End::hung], 0) << report.details;
  EXPECT_EQ(report.count[End::failed], 0) << report.details;
  // The generator hits what matters, and what does not.
  EXPECT_GT(report.count[End::refused], report.count[End::served] / 10);
  EXPECT_GT(report.count[End::served], 0);
}

TEST(PluginMutations, TheUndamagedPluginServes) {
  const fakes::Directory plugins;
  plugins.add("fake_minimal");
  EXPECT_EQ(use_in_child(plugins), End::refused);
  plugins.add("fake_both_hashes");
  EXPECT_EQ(use_in_child(plugins), End::served);
}

TEST(PluginMutations, NoneKillsTheHost) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer ends the process where it would go on";
  expect_survival(mutate_often(fakes::fake("fake_both_hashes"), 1000));
}

// In C++, and with tables of other sizes.
TEST(PluginMutations, NoneOfTheCpusKillsTheHost) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer ends the process where it would go on";
  expect_survival(mutate_often(cpu_plugin(), 200));
}

}  // namespace
}  // namespace attnrt::core
