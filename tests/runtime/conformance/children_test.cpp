// tests/runtime/conformance/children_test.cpp: how a child ended, where SIGCHLD is ignored or not
#include "conformance/children.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>

namespace attnrt::conformance {
namespace {

using ::testing::HasSubstr;

// Returns the detail of the one rule that failed by ending its process; "" if there is none.
std::string how_it_died(const std::string& fake) {
  Settings settings;
  settings.cases = 4;
  const auto results =
      check_rules_in_children(ATTNRT_BUILD_DIR "/tests/fakes/plugins/" + fake + ".so", settings,
                              {ATTNRT_COMMAND, "verify-child"}, {});
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

}  // namespace
}  // namespace attnrt::conformance
