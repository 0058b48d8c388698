// tests/runtime/conformance/rules_test.cpp: the table of rules is consistent
#include "conformance/rules.hpp"

#include <gtest/gtest.h>

#include <set>

#include "conformance/check_rules.hpp"

namespace attnrt::conformance {
namespace {

TEST(Rules, IdsAreUniqueAndWhatARuleNeedsComesBeforeIt) {
  std::set<std::string_view> ids;
  for (const Rule& rule : rules()) {
    EXPECT_TRUE(rule.needs.empty() || ids.contains(rule.needs)) << rule.id;
    EXPECT_TRUE(ids.insert(rule.id).second) << rule.id;
    EXPECT_FALSE(rule.requirement.empty() || rule.effect.empty()) << rule.id;
    EXPECT_EQ(find_rule(rule.id), &rule);
  }
  EXPECT_EQ(find_rule("ABI-999"), nullptr);
}

TEST(Rules, OnlyWhatWasAskedForAndWhatItNeedsIsChecked) {
  Settings settings;
  settings.only = {"ABI-3"};
  std::vector<std::string> checked;
  Listener listener;
  listener.started = [](const Rule&) {};
  listener.finished = [&checked](const RuleResult& result) {
    checked.emplace_back(result.rule->id);
    EXPECT_NE(result.outcome.state, State::passed);
  };
  check_rules("/nowhere/absent.so", settings, {}, listener);
  EXPECT_EQ(checked, (std::vector<std::string>{"ABI-1", "ABI-3"}));
}

}  // namespace
}  // namespace attnrt::conformance
