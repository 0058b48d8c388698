// tests/runtime/library_test.cpp: which bytes are mapped, and from where
#include "library.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "fakes/fakes.hpp"
#include "support/load_fixture.hpp"

namespace attnrt::core {
namespace {

using support::outcome;
using support::run_failure;
using ::testing::HasSubstr;
using ::testing::StartsWith;

using LibraryTest = support::LoadFixture;

TEST_F(LibraryTest, TheSameBytesAreMappedOnce) {
  const auto one = map_library(*found("fake_full", "one.so"), false);
  const auto two = map_library(*found("fake_full", "two.so"), false);
  const auto other = map_library(*found("fake_minimal"), false);
  ASSERT_TRUE(one && two && other);
  EXPECT_EQ(*one, *two);
  EXPECT_NE(*one, *other);
  EXPECT_STREQ((*one)->name, "fake_full");
}

// What was found and checked is what is loaded, by path too.
TEST_F(LibraryTest, ByPathRefusesWhatChangedSinceItWasFound) {
  const fakes::Directory elsewhere;
  const auto outside = elsewhere.add("fake_full");
  auto plugin = found("fake_minimal");
  ASSERT_TRUE(std::filesystem::remove(plugin->path));
  std::filesystem::create_symlink(outside, plugin->path);
  EXPECT_THAT(outcome(load(plugin, {}, services, true)),
              HasSubstr("outside the plugin directories"));
  ASSERT_TRUE(std::filesystem::remove(plugin->path));
  std::filesystem::copy_file(outside, plugin->path);
  EXPECT_THAT(outcome(load(plugin, {}, services, true)),
              HasSubstr("has changed since it was found"));
  EXPECT_THAT(outcome(load(found("fake_minimal"), {}, services, true)), StartsWith("ready"));
}

TEST_F(LibraryTest, OverwritingALoadedPluginDisturbsNobody) {
  const auto plugin = found("fake_full");
  const auto backend = load(plugin, {}, services, false);
  ASSERT_TRUE(backend) << backend.error().message;
  fakes::overwrite_file(plugin->path, "");
  EXPECT_EQ(run_failure(**backend), "");
  fakes::overwrite_file(plugin->path, fakes::read_file(fakes::fake("fake_bad_garbage")));
  EXPECT_EQ(run_failure(**backend), "");
  const auto again = load(plugin, {}, services, false);  // what was checked is what is loaded
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(run_failure(**again), "");
}

TEST_F(LibraryTest, ByPathMapsTheFileItself) {
  const auto backend = loaded("fake_full", {}, true);
  ASSERT_TRUE(backend) << backend.error().message;
  EXPECT_THAT(fakes::read_file("/proc/self/maps"), HasSubstr(directory.text() + "/fake_full.so"));
  EXPECT_EQ(run_failure(**backend), "");
}

TEST_F(LibraryTest, NothingOfTheFileStaysMappedByPath) {
  const auto backend = loaded("fake_versions-1.2.0");
  ASSERT_TRUE(backend);
  EXPECT_THAT(fakes::read_file("/proc/self/maps"), ::testing::Not(HasSubstr(directory.text())));
}

}  // namespace
}  // namespace attnrt::core
