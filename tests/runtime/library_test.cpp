// tests/runtime/library_test.cpp: which bytes are mapped, and from where
#include "library.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "fakes/fakes.hpp"
#include "support/failing_calls.hpp"
#include "support/load_fixture.hpp"

namespace attnrt::core {
namespace {

using support::before_dlopen;
using support::FailingCall;
using support::outcome;
using support::run_failure;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

using LibraryTest = support::LoadFixture;

TEST_F(LibraryTest, TheSameBytesAreMappedOnce) {
  const auto one = map_library(*found("fake_full", "one.so"), false);
  const auto two = map_library(*found("fake_full", "two.so"), false);
  const auto other = map_library(*found("fake_minimal"), false);
  ASSERT_TRUE(one && two && other);
  EXPECT_EQ(one->table, two->table);
  EXPECT_NE(one->table, other->table);
  EXPECT_STREQ(one->table->name, "fake_full");
}

bool is_mapped(const std::string& name) {
  return fakes::read_file("/proc/self/maps").find(name) != std::string::npos;
}

TEST_F(LibraryTest, AnUnloadableOneIsUnmappedAfterItsLastUse) {
  for (const bool by_path : {false, true}) {
    const std::string file = fmt::format("unloadable_{}.so", by_path);
    const auto plugin = found("fake_unloadable", file);
    auto one = load(plugin, {}, services, by_path);
    auto two = load(plugin, {}, services, by_path);
    ASSERT_TRUE(one && two) << outcome(one) << outcome(two);
    one->reset();
    EXPECT_TRUE(is_mapped(file));
    EXPECT_EQ(run_failure(**two), "");
    two->reset();
    EXPECT_FALSE(is_mapped(file));
    EXPECT_THAT(outcome(load(plugin, {}, services, by_path)), StartsWith("ready"));
    EXPECT_FALSE(is_mapped(file));
  }
}

TEST_F(LibraryTest, OthersStayMapped) {
  auto backend = loaded("fake_minimal", {}, true);
  ASSERT_TRUE(backend) << backend.error().message;
  backend->reset();
  EXPECT_TRUE(is_mapped(directory.text() + "/fake_minimal.so"));
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

// Bytes that no other test has loaded.
std::string fresh_bytes(const std::string& name, int n) {
  return fakes::read_file(fakes::fake(name)) + fmt::format("library_test {}", n);
}

// The file is replaced at the worst moment: after it was read, before it is mapped.
TEST_F(LibraryTest, ByPathRefusesWhatChangesBeforeItIsMapped) {
  const fakes::Directory elsewhere;
  for (const std::string& other : {fresh_bytes("fake_versions-1.2.0", 1),
                                   fresh_bytes("fake_full", 2), fresh_bytes("fake_full", 3)}) {
    directory.write("plugin.so", fresh_bytes("fake_full", 1));
    const auto plugin = discover({directory.text()}).value().plugins.at(0);
    before_dlopen = [&](const char* path) {
      std::filesystem::rename(elsewhere.write("new.so", other), path);
    };
    const auto refused = load(plugin, {}, services, true);
    before_dlopen = nullptr;
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message,
                ::testing::AnyOf(HasSubstr("mapped other bytes"), HasSubstr("has changed since")));
    // A reload finds the new bytes, and they can be loaded.
    const auto next = discover({directory.text()}).value().plugins.at(0);
    EXPECT_THAT(outcome(load(next, {}, services, true)), StartsWith("ready"));
    std::filesystem::remove(directory.path() / "plugin.so");
  }
}

TEST_F(LibraryTest, ByPathRefusesAFileThatWasOverwrittenInPlaceWhileMapped) {
  const auto path = directory.write("plugin.so", fresh_bytes("fake_full", 4));
  const auto find = [&] { return discover({directory.text()}).value().plugins.at(0); };
  ASSERT_TRUE(load(find(), {}, services, true));
  std::fstream stream(path, std::ios::in | std::ios::out | std::ios::binary | std::ios::ate);
  stream << "more";  // past everything that is mapped
  stream.close();
  EXPECT_THAT(outcome(load(find(), {}, services, true)), HasSubstr("was overwritten in place"));
  EXPECT_THAT(outcome(load(find(), {}, services, false)), StartsWith("ready"));
}

// Another thread closes all descriptors and opens a file of its own while a copy is loaded.
TEST_F(LibraryTest, RefusesALibraryThatIsNotTheSealedCopy) {
  directory.write("plugin.so", fresh_bytes("fake_full", 5));
  const auto plugin = discover({directory.text()}).value().plugins.at(0);
  const Descriptor other(::open(fakes::fake("fake_versions-1.2.0").c_str(), O_RDONLY | O_CLOEXEC));
  before_dlopen = [&](const char* path) {
    const std::string text = path;
    dup2(other.number(), std::stoi(text.substr(text.rfind('/') + 1)));
  };
  const auto refused = load(plugin, {}, services, false);
  before_dlopen = nullptr;
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("mapped other bytes than were checked"));
  EXPECT_THAT(outcome(load(plugin, {}, services, false)), StartsWith("ready"));
}

// Each copy is opened by a descriptor of the same number, and each is a library of its own.
TEST_F(LibraryTest, TheSameDescriptorAgainIsAnotherLibrary) {
  std::set<const attnrt_plugin*> tables;
  std::set<std::string> paths, numbers;
  before_dlopen = [&](const char* path) {
    paths.insert(path);
    numbers.insert(std::string(path).substr(std::string(path).rfind('/')));
  };
  for (int n = 10; n < 20; ++n) {
    directory.write("plugin.so", fresh_bytes("fake_full", n));
    const auto mapped = map_library(*discover({directory.text()}).value().plugins.at(0), false);
    ASSERT_TRUE(mapped) << mapped.error().message;
    tables.insert(mapped->table);
  }
  before_dlopen = nullptr;
  EXPECT_EQ(tables.size(), 10u);
  EXPECT_EQ(paths.size(), 10u);
  EXPECT_EQ(numbers.size(), 1u);
}

// What a system may refuse: memory files at all (ENOSYS, a sandbox), some (vm.memfd_noexec), code
// in them (SELinux), and /proc.
TEST_F(LibraryTest, WithoutLoadableCopiesTheFileItselfIsLoaded) {
  int n = 30;
  for (const auto& [call, error] :
       std::vector<std::pair<std::string, int>>{{"memfd_create", ENOSYS},
                                                {"memfd_create", EPERM},
                                                {"memfd_create", EACCES},
                                                {"mmap code", EACCES},
                                                {"mmap code", EPERM},
                                                {"stat", ENOENT}}) {
    std::filesystem::remove(directory.path() / "plugin.so");
    directory.write("plugin.so", fresh_bytes("fake_full", ++n));
    const auto plugin = discover({directory.text()}).value().plugins.at(0);
    log.clear();
    const FailingCall failing(call, error);
    EXPECT_THAT(outcome(load(plugin, {}, services, false)), StartsWith("ready")) << call;
    EXPECT_TRUE(failing.happened());
    EXPECT_THAT(log, Contains(HasSubstr("its checked copy cannot be loaded here")));
    EXPECT_THAT(fakes::read_file("/proc/self/maps"), HasSubstr(directory.text() + "/plugin.so"));
  }
}

TEST_F(LibraryTest, WhatMayWorkLaterIsNoFallback) {
  int n = 50;
  for (const auto& [call, error] : std::vector<std::pair<std::string, int>>{
           {"memfd_create", EMFILE}, {"memfd_create", ENOMEM}, {"mmap code", ENOMEM}}) {
    directory.write("plugin.so", fresh_bytes("fake_full", ++n));
    const auto plugin = discover({directory.text()}).value().plugins.at(0);
    {
      const FailingCall failing(call, error);
      const auto failed = load(plugin, {}, services, false);
      ASSERT_FALSE(failed) << call;
      EXPECT_EQ(failed.error().code, error == ENOMEM ? ATTNRT_OUT_OF_MEMORY : ATTNRT_INTERNAL);
    }
    EXPECT_THAT(outcome(load(plugin, {}, services, false)), StartsWith("ready"));
    EXPECT_THAT(log, IsEmpty());
  }
}

TEST_F(LibraryTest, ALimitOfFileSizesIsNoSignal) {
  directory.write("plugin.so", fresh_bytes("fake_full", 60));
  const auto plugin = discover({directory.text()}).value().plugins.at(0);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  rlimit small = before;
  small.rlim_cur = 1000;
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string loaded = outcome(load(plugin, {}, services, false));
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_THAT(loaded, StartsWith("ready"));
  EXPECT_THAT(log, Contains(HasSubstr("this process may write files of 1000 (ulimit -f)")));
}

// An application may close all descriptors, as daemons do, and open its own under their numbers.
TEST_F(LibraryTest, AnApplicationMayCloseAllDescriptors) {
  directory.write("plugin.so", fresh_bytes("fake_full", 70));
  const auto daemon = [this] {
    const auto plugin = discover({directory.text()}).value().plugins.at(0);
    close_range(3, ~0U, 0);
    for (int n = 3; n < 12; ++n) {
      if (::open("/dev/null", O_RDONLY) != n) _exit(2);
    }
    const std::string loaded = outcome(load(plugin, {}, services, false));
    if (!loaded.starts_with("ready")) _exit(3);
    struct stat null {
    }, mine{};
    stat("/dev/null", &null);
    for (int n = 3; n < 12; ++n) {
      if (fstat(n, &mine) != 0 || mine.st_ino != null.st_ino) _exit(4);
    }
    _exit(0);
  };
  EXPECT_EXIT(daemon(), ::testing::ExitedWithCode(0), "");
}

TEST_F(LibraryTest, NothingOfTheFileStaysMappedByPath) {
  const auto backend = loaded("fake_versions-1.2.0");
  ASSERT_TRUE(backend);
  EXPECT_THAT(fakes::read_file("/proc/self/maps"), ::testing::Not(HasSubstr(directory.text())));
}

}  // namespace
}  // namespace attnrt::core
