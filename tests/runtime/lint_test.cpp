// tests/runtime/lint_test.cpp: warnings of names in a policy that are probably misspelt
#include "lint.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/candidates.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// The warnings of a policy where these backends are found.
std::vector<std::string> warnings(const std::string& policy, const std::vector<std::string>& names,
                                  const Environment& environment = {}) {
  Discovery found;
  for (const auto& name : names) found.plugins.push_back(found_plugin(name, "1.0.0", "cpu"));
  return lint_policy(policy_of(policy, environment).config(), found);
}

TEST(Lint, OnlyLikelyTypingErrorsAreWarnings) {
  const std::vector<std::string> here = {"cpu", "my_backend"};
  EXPECT_THAT(
      warnings("backends: {my_bakend: {priority: 1}}", here),
      ElementsAre("policy.yaml:1:12: backends.my_bakend: no backend is named my_bakend; did "
                  "you mean my_backend?"));
  for (const char* name : {"cpu", "my_backend", "gpu", "cpu2", "entirely_different", "hip_flash"}) {
    EXPECT_THAT(warnings(fmt::format("backends: {{{}: {{priority: 1}}}}", name), here), IsEmpty())
        << name;
  }
}

TEST(Lint, AGlobMayMatchABackendThatThePolicyListsButIsNotHere) {
  EXPECT_THAT(warnings("", {"cpu"}, {.disable = "c*,hip_*,x*"}),
              ElementsAre("ATTNRT_DISABLE: no backend is named x*"));
}

TEST(Lint, AGlobThatDisablesNobodyIsAWarning) {
  const Variable disabled("ATTNRT_DISABLE",
                          "fake_ful,fake_m*,hip_*");  // hip_flash is in the built-in policy
  TestRuntime runtime({"fake_full", "fake_minimal"});
  EXPECT_THAT(runtime.log(), ElementsAre("2: ATTNRT_DISABLE: no backend is named fake_ful"));
}

TEST(Lint, AMisspeltNameIsAWarningOnceForEachName) {
  TestRuntime runtime(
      {"fake_full", "fake_minimal"},
      "backends:\n"
      "  fake_ful: {enabled: false}\n"
      "  hip_flash: {priority: 1}\n"
      "  fake_full2: {priority: 1}\n"
      "  somebody_elses: {priority: 1}\n"
      "rules:\n"
      "  - {name: wide, prefer: [fake_fill, lake_full, broken], deny: [fake_ful, fake_minimol]}\n");
  const auto place = [&](const char* at) { return "2: " + runtime.policy_file() + at; };
  const auto expected = ElementsAre(
      place(":3:3: backends.fake_ful: no backend is named fake_ful; did you mean fake_full?"),
      place(":8:5: wide: prefer: no backend is named fake_fill; did you mean fake_full?"),
      place(":8:5: wide: deny: no backend is named fake_minimol; did you mean fake_minimal?"));
  EXPECT_THAT(runtime.log(), expected);
  runtime.clear_log();
  runtime.plugins.write("fake_fill.so", "no plugin, but one of that name");
  ASSERT_TRUE(runtime->reload());
  EXPECT_THAT(runtime.log(), SizeIs(2));
}

}  // namespace
}  // namespace attnrt::core
