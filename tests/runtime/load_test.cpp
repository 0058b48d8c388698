// tests/runtime/load_test.cpp: what becomes of every fake plugin, right or wrong, when it is loaded
#include "load.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "fakes/fake.h"
#include "fakes/fakes.hpp"
#include "support/golden.hpp"
#include "support/load_fixture.hpp"

namespace attnrt::core {
namespace {

using support::outcome;
using support::run_failure;

using LoadTest = support::LoadFixture;

// All fakes but those that would crash, hang, exit or print.
TEST_F(LoadTest, EveryFake) {
  std::string text;
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(ATTNRT_FAKES_DIR))
    names.push_back(entry.path().stem());
  std::sort(names.begin(), names.end());
  for (const auto& name : names) {
    if (name == "fake_aborts" || name == "fake_bad_crash" || name == "fake_bad_hang") continue;
    if (name == "fake_bad_stdout" || name == "fake_bad_exit") continue;
    if (name == "fake_bad_stdout_crash" || name == "fake_open_hangs") continue;
    text += fmt::format("{}: {}\n", name, outcome(loaded(name)));
  }
  EXPECT_TRUE(testing::matches_golden("discover/loads.txt", text));
}

TEST_F(LoadTest, VersionsStandSideBySide) {
  std::vector<std::shared_ptr<Backend>> all;
  for (const std::string version : {"1.0.0", "1.2.0", "2.0.0-rc.1"}) {
    auto backend = loaded("fake_versions-" + version);
    ASSERT_TRUE(backend) << backend.error().message;
    EXPECT_EQ((*backend)->manifest().version_text, version);
    EXPECT_EQ((*backend)->manifest().name, "fake_versions");
    all.push_back(*backend);
  }
  EXPECT_NE(all[0]->extension(FAKE_COUNTERS), all[1]->extension(FAKE_COUNTERS));
  for (const auto& backend : all) EXPECT_EQ(run_failure(*backend), "");
}

TEST_F(LoadTest, TheSameBytesTwiceAreTwoInstances) {
  const auto one = load(found("fake_full", "one.so"), {}, services, false);
  const auto two = load(found("fake_full", "two.so"), {}, services, false);
  ASSERT_TRUE(one && two);
  EXPECT_NE((*one)->instance(), (*two)->instance());
}

}  // namespace
}  // namespace attnrt::core
