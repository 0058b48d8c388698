// tests/runtime/formats/semver_test.cpp: the order of versions, and what ranges contain
#include "formats/semver.hpp"

#include <gtest/gtest.h>

#include <random>

namespace attnrt::core {
namespace {

Version version(std::string_view text) {
  auto parsed = parse_version(text);
  EXPECT_TRUE(parsed) << text;
  return parsed.value_or(Version{});
}

// The examples of semver.org, items 2, 9 to 11, and their neighbours, in ascending order.
TEST(Semver, OrdersAsSemverOrgSays) {
  const std::vector<std::string_view> ascending = {
      "0.0.0",       "0.0.9",        "0.9.0",         "1.0.0-0",
      "1.0.0-0.3.7", "1.0.0-2",      "1.0.0-10",      "1.0.0-99999999999999999999",
      "1.0.0--",     "1.0.0-alpha",  "1.0.0-alpha.1", "1.0.0-alpha.beta",
      "1.0.0-beta",  "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1",
      "1.0.0",       "1.9.0",        "1.10.0",        "1.11.0",
      "2.0.0",       "2.1.0",        "2.1.1"};
  for (size_t a = 0; a < ascending.size(); ++a) {
    for (size_t b = 0; b < ascending.size(); ++b) {
      EXPECT_EQ(version(ascending[a]) <=> version(ascending[b]), a <=> b)
          << ascending[a] << " and " << ascending[b];
    }
  }
}

TEST(Semver, IgnoresBuildMetadata) {
  EXPECT_EQ(version("1.0.0+20130313144700"), version("1.0.0"));
  EXPECT_EQ(version("1.0.0-beta+exp.sha.5114f85"), version("1.0.0-beta"));
  EXPECT_EQ(version("1.0.0+21AF26D3---117B344092BD"), version("1.0.0+001"));
}

TEST(Semver, RefusesWhatIsNoVersion) {
  for (const std::string_view text : {"",
                                      "1",
                                      "1.0",
                                      "1.0.0.0",
                                      "01.0.0",
                                      "1.00.0",
                                      "1.0.01",
                                      "v1.0.0",
                                      " 1.0.0",
                                      "1.0.0 ",
                                      "1.0.-1",
                                      "1.0.0-",
                                      "1.0.0+",
                                      "1.0.0-a..b",
                                      "1.0.0-01",
                                      "1.0.0-a.00",
                                      "1.0.0-a_b",
                                      "1.0.0+a+b",
                                      "1.0.0-\xC3\xA9",
                                      "+1.0.0",
                                      "1.0.0x",
                                      "9223372036854775808.0.0",
                                      "1..0",
                                      ".1.0",
                                      "1.0."}) {
    const auto parsed = parse_version(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().code, ATTNRT_INVALID_ARGUMENT);
    EXPECT_NE(parsed.error().message.find("expected a semantic version"), std::string::npos);
  }
  EXPECT_EQ(parse_version("1.0").error().message,
            "found 1.0, expected a semantic version such as 1.0.0 or 1.1.0-rc.1");
  EXPECT_EQ(version("9223372036854775807.0.0").major, INT64_MAX);
}

struct RangeRow {
  std::string_view range;
  std::vector<std::string_view> inside, outside;
};

TEST(Semver, RangesHoldTheirVersions) {
  const RangeRow rows[] = {
      {">=1.0, <2",
       {"1.0.0", "1.99.3", "1.0.0+build"},
       {"0.9.9", "2.0.0", "1.5.0-rc.1", "2.0.0-rc.1", "1.0.0-rc.1"}},
      {">=1.2.3", {"1.2.3", "3.0.0"}, {"1.2.2", "1.2.3-rc.1"}},
      {">1", {"1.0.1", "2.0.0"}, {"1.0.0", "0.1.0"}},
      {"<=1.2", {"1.2.0", "0.0.1"}, {"1.2.1"}},
      {"=1.2", {"1.2.0"}, {"1.2.1", "1.3.0"}},
      {"  >= 1.0 ,< 1.1  ", {"1.0.5"}, {"1.1.0"}},
      {"=1.1.0-rc.1", {"1.1.0-rc.1"}, {"1.1.0", "1.1.0-rc.2"}},
      // A pre-release is inside only where a comparison names one of the same MAJOR.MINOR.PATCH.
      {">=1.1.0-rc.2, <2",
       {"1.1.0-rc.2", "1.1.0-rc.10", "1.1.0", "1.9.0"},
       {"1.1.0-rc.1", "1.2.0-rc.5", "2.0.0-rc.1"}},
      {">=1.0, <2.0.0-rc.3", {"1.5.0", "2.0.0-rc.2"}, {"2.0.0-rc.3", "2.0.0", "1.5.0-rc.1"}},
      {">=2, <1", {}, {"0.5.0", "1.5.0", "2.5.0"}},
  };
  for (const RangeRow& row : rows) {
    const auto range = parse_version_range(row.range);
    ASSERT_TRUE(range) << row.range;
    EXPECT_EQ(range->text, row.range);
    for (const auto text : row.inside)
      EXPECT_TRUE(range->contains(version(text))) << text << " in " << row.range;
    for (const auto text : row.outside)
      EXPECT_FALSE(range->contains(version(text))) << text << " in " << row.range;
  }
}

TEST(Semver, NoComparisonHoldsEveryRelease) {
  EXPECT_TRUE(VersionRange{}.contains(version("7.0.0")));
  EXPECT_FALSE(VersionRange{}.contains(version("7.0.0-rc.1")));
}

TEST(Semver, ARangeMayHoldNothing) {
  const auto is_empty = [](std::string_view text) { return parse_version_range(text)->is_empty(); };
  for (const auto text : {">=2, <1", ">1.0, <1.0.1", "=1.0, =1.1", "<0", ">1.0.0-rc.1, <1.0.0-rc.1",
                          ">=1.1, <1.1.0-rc.1"})
    EXPECT_TRUE(is_empty(text)) << text;
  for (const auto text : {">=1", ">=1, <2", ">1.0, <1.0.2", "<=0", "<1.0.0-rc.1", "=1.0.0-rc.1",
                          ">=1.0.0-rc.1, <1.0.0", ">1.0.0-rc.1, <1.0.0", ">1.0.0-rc.1, <=1.0.0",
                          ">=1.0, <1.1.0-rc.1"})
    EXPECT_FALSE(is_empty(text)) << text;
  EXPECT_FALSE(VersionRange{}.is_empty());
}

// The version right after a bound, where a number of the bound is the largest that there is.
TEST(Semver, RangesAtTheLargestNumbers) {
  const std::string most = "9223372036854775807";
  const auto range = [](const std::string& text) { return parse_version_range(text).value(); };
  EXPECT_FALSE(range(">1.0." + most).is_empty());
  EXPECT_TRUE(range(">1.0." + most).contains(version("1.1.0")));
  EXPECT_TRUE(range(">1.0." + most + ", <1.1.0").is_empty());
  EXPECT_FALSE(range(">1." + most + "." + most).is_empty());
  EXPECT_TRUE(range(">1." + most + "." + most + ", <2").is_empty());
  EXPECT_FALSE(range(">1." + most + "." + most + ", <=2").is_empty());
  EXPECT_FALSE(range(">=" + most + "." + most + "." + most).is_empty());
  EXPECT_TRUE(range(">" + most + "." + most + "." + most).is_empty());
  EXPECT_FALSE(range("<=" + most + "." + most + "." + most).is_empty());
  for (const std::string text : {"9223372036854775808", "18446744073709551616"}) {
    EXPECT_FALSE(parse_version(text + ".0.0"));
    EXPECT_FALSE(parse_version("0.0." + text));
    EXPECT_FALSE(parse_version_range(">=" + text));
  }
}

TEST(Semver, RefusesWhatIsNoRange) {
  for (const std::string_view text :
       {"", " ", ",", "1.0", ">=", ">=1.0,", ",<2", ">=1.0 <2", "==1.0", "=>1.0", "^1.2", "~1.2",
        "1.x", ">=1.0-rc.1", ">=01", "<2.0.0.0", ">=1.0, ,<2", "!=1.0", "*"}) {
    const auto range = parse_version_range(text);
    ASSERT_FALSE(range) << text;
    EXPECT_NE(range.error().message.find("expected comparisons such as"), std::string::npos);
  }
}

TEST(Semver, SurvivesAnyBytes) {
  std::mt19937 random(7);
  const std::string_view alphabet = "0123456789.-+<>=, arc\0\xff";
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (auto length = random() % 24; length > 0; --length)
      text += alphabet[random() % alphabet.size()];
    const auto parsed = parse_version(text);
    EXPECT_TRUE(!parsed || *parsed == *parsed) << text;
    const auto range = parse_version_range(text);
    EXPECT_TRUE(!range || !range->comparisons.empty()) << text;
  }
}

}  // namespace
}  // namespace attnrt::core
