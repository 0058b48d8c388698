// tests/runtime/conformance/children_test.cpp: how a child ended, where SIGCHLD is ignored or not
#include "conformance/children.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "support/sanitized.hpp"

namespace attnrt::conformance {
namespace {

using ::testing::HasSubstr;

std::vector<RuleResult> check(const std::string& fake, const Settings& settings,
                              const Progress& progress = {}) {
  return check_rules_in_children(ATTNRT_BUILD_DIR "/tests/fakes/plugins/" + fake + ".so", settings,
                                 {ATTNRT_COMMAND, "verify-child"}, progress);
}

// Returns the detail of the one rule that failed by ending its process; "" if there is none.
std::string how_it_died(const std::string& fake) {
  Settings settings;
  settings.cases = 4;
  const auto results = check(fake, settings);
  const auto died = std::find_if(results.begin(), results.end(),
                                 [](const RuleResult& result) { return result.outcome.died; });
  return died != results.end() ? died->outcome.detail : "";
}

TEST(Children, TheSignalThatEndedOneIsReported) {
  // AddressSanitizer takes the signal, and ends the process itself.
  EXPECT_THAT(how_it_died("fake_bad_crash"),
              AnyOf(HasSubstr("ended by signal 11"), HasSubstr("AddressSanitizer")));
  EXPECT_EQ(how_it_died("fake_full"), "");
}

TEST(Children, WhereSigchldIsIgnoredACrashIsStillACrash) {
  const auto before = signal(SIGCHLD, SIG_IGN);
  const std::string crash = how_it_died("fake_bad_crash"), none = how_it_died("fake_full");
  signal(SIGCHLD, before);
  EXPECT_THAT(crash, HasSubstr("this process ignores SIGCHLD"));
  EXPECT_EQ(none, "");
}

TEST(Children, OneThatIsKilledAtItsDeadlineIsLate) {
  Settings settings;
  settings.cases = 4;
  settings.silence_seconds = 2;
  settings.until_failure = true;
  for (const auto& [fake, late] : {std::pair{"fake_bad_hang", true}, {"fake_bad_crash", false}}) {
    const auto results = check(fake, settings);
    ASSERT_FALSE(results.empty());
    EXPECT_EQ(results.back().outcome.state, State::failed);
    EXPECT_EQ(results.back().outcome.timed_out, late) << results.back().outcome.detail;
  }
}

// The child's program is started with another effective user than real user. The system then
// forgets that the child is to be killed with its parent.
TEST(Children, EndWithTheirParentAlsoWhereItHasAnotherEffectiveUser) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can change its users";
  if (core::support::kSanitized)
    GTEST_SKIP() << "a sanitizer's own locks and threads do not survive a fork";
  ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    constexpr uid_t kNobody = 65534;
    if (setresuid(kNobody, 0, 0) != 0) _exit(1);
    Settings settings;
    settings.cases = 4;
    // Once the rule that hangs has begun.
    (void)check("fake_bad_hang", settings, [&](const Rule&, int64_t, int64_t) {
      if (write(ends[1], "x", 1) < 0) _exit(1);
    });
    _exit(2);
  }
  close(ends[1]);
  char begun = 0;
  ASSERT_EQ(read(ends[0], &begun, 1), 1) << "the rule did not begin";
  close(ends[0]);
  kill(parent, SIGKILL);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  pid_t ended = 0;
  // What the parent leaves becomes a child of this process.
  while ((ended = waitpid(-1, nullptr, WNOHANG)) >= 0 &&
         std::chrono::steady_clock::now() < deadline) {
    if (ended == 0) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_EQ(ended, -1) << "a child runs on";
  EXPECT_EQ(errno, ECHILD);
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}

// A rule that computes for long is not taken for one that hangs.
TEST(Children, ARuleTellsThatItIsAtWorkWhileExactResultsAreComputed) {
  Settings settings;
  settings.cases = 16;
  settings.only = {"ACC-11"};
  int64_t reports = 0;
  const auto count = [&](const Rule& rule, int64_t done, int64_t) {
    reports += rule.id == "ACC-11" && done < 0 ? 1 : 0;
  };
  check_rules(ATTNRT_BUILD_DIR "/tests/fakes/plugins/fake_every_word.so", settings, {},
              {[](const Rule&) {}, [](const RuleResult&) {}, count, {}});
  EXPECT_GT(reports, 1000);
}

}  // namespace
}  // namespace attnrt::conformance
