// tests/runtime/registry_test.cpp: records of probes on disk, whole, damaged and out of reach
#include "registry.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ctime>
#include <thread>

#include "fakes/fakes.hpp"
#include "record.hpp"
#include "support/failing_calls.hpp"

namespace attnrt::core {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using State = AdmissionRecord::State;

const std::string kKey =
    file_key(std::string(64, 'a') + "-" + std::string(16, '1'), AdmissionLevel::conforms);
const AdmissionRecord kRefused{State::refused, AdmissionLevel::conforms,
                               "ACC-1: 3 values of out are wrong", 1796101385, "77ed96da"};

void expect_same(const std::optional<AdmissionRecord>& found, const AdmissionRecord& expected) {
  ASSERT_TRUE(found);
  EXPECT_EQ(found->state, expected.state);
  EXPECT_EQ(found->level, expected.level);
  EXPECT_EQ(found->reason, expected.reason);
  EXPECT_EQ(found->at_seconds, expected.at_seconds);
  EXPECT_EQ(found->boot, expected.boot);
}

struct RegistryTest : testing::Test {
  fakes::Directory directory;
  fs::path folder = directory.path() / "a" / "admission";
  Registry registry = Registry::open(folder).value();
  fs::path file = folder / (kKey + ".txt");
};

TEST_F(RegistryTest, KeepsWhatIsStored) {
  EXPECT_EQ(registry.find(kKey), std::nullopt);
  ASSERT_TRUE(registry.store(kKey, kRefused));
  expect_same(registry.find(kKey), kRefused);
  expect_same(Registry::open(folder)->find(kKey), kRefused);
  const AdmissionRecord admitted{State::admitted, AdmissionLevel::loads, "", 5, ""};
  ASSERT_TRUE(registry.store(kKey, admitted));
  expect_same(registry.find(kKey), admitted);
  registry.forget(kKey);
  EXPECT_EQ(registry.find(kKey), std::nullopt);
  EXPECT_TRUE(fs::is_empty(folder));
}

TEST_F(RegistryTest, IsThisUsersAlone) {
  struct stat status {};
  ASSERT_EQ(stat(folder.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0700);
  ASSERT_TRUE(registry.store(kKey, kRefused));
  ASSERT_EQ(stat(file.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600);
}

TEST_F(RegistryTest, AFolderThatOthersMayWriteIsNotUsed) {
  ASSERT_EQ(chmod(folder.c_str(), 0777), 0);
  const auto opened = Registry::open(folder);
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().message, HasSubstr("may be written by others (mode 777)"));
}

TEST_F(RegistryTest, AFolderOfAnotherUserIsNotUsed) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can give a folder away";
  ASSERT_EQ(chown(folder.c_str(), 12345, 12345), 0);
  const auto opened = Registry::open(folder);
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().message, HasSubstr("is owned by user 12345; expected user 0"));
}

TEST_F(RegistryTest, ALinkIsNoRegistry) {
  fs::create_directory_symlink(folder, directory.path() / "link");
  EXPECT_FALSE(Registry::open(directory.path() / "link"));
}

TEST_F(RegistryTest, NorIsAFolderThatOthersMayExchange) {
  ASSERT_EQ(chmod(folder.parent_path().c_str(), 0777), 0);
  const auto opened = Registry::open(folder);
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().message, HasSubstr("not trusted: "));
}

TEST_F(RegistryTest, EveryPartOfARecordIsNoRecord) {
  const std::string whole = text_of(kRefused);
  for (size_t size = 0; size + 1 < whole.size(); ++size) {  // the last newline may be missing
    fakes::overwrite_file(file, whole.substr(0, size));
    EXPECT_EQ(registry.find(kKey), std::nullopt) << whole.substr(0, size);
  }
}

TEST_F(RegistryTest, WhatIsNoRecordIsNoRecord) {
  const std::string whole = text_of(kRefused);
  const auto with = [&whole](const char* from, const char* to) {
    return fakes::replaced(whole, from, to);
  };
  for (const std::string& text : {std::string(),
                                  std::string("\0\0\0", 3),
                                  std::string(20000, 'x'),
                                  whole + whole,
                                  with("admission 1", "admission 2"),
                                  with("state refused", "state maybe"),
                                  with("level conforms", "level off"),
                                  with("level conforms", "level"),
                                  with("at 1796101385", "at 12x"),
                                  with("at 1796101385", "at 99999999999999999999"),
                                  with("at 1796101385", "at -1"),
                                  with("at ", "when "),
                                  with("end", "END"),
                                  with("attempts 1", "attempts 0"),
                                  with("attempts 1", "attempts 9223372036854775807"),
                                  with("attempts 1", "attempts +1"),
                                  with("attempts 1", " attempts 1"),
                                  with("boot", "\nboot"),
                                  with("ACC-1", "ACC-\x1b[1"),
                                  whole + "more"}) {
    fakes::overwrite_file(file, text);
    EXPECT_EQ(registry.find(kKey), std::nullopt) << text.substr(0, 200);
  }
}

TEST_F(RegistryTest, AFifoOrALinkIsNoRecord) {
  ASSERT_EQ(mkfifo(file.c_str(), 0600), 0);
  EXPECT_EQ(registry.find(kKey), std::nullopt) << "and it is not waited on";
  fs::remove(file);
  fs::create_symlink(directory.write("elsewhere", text_of(kRefused)), file);
  EXPECT_EQ(registry.find(kKey), std::nullopt);
}

TEST_F(RegistryTest, AReasonOfSeveralLinesStaysOneRecord) {
  AdmissionRecord record = kRefused;
  record.reason = "one\nend\nstate admitted\x01";
  ASSERT_TRUE(registry.store(kKey, record));
  const auto found = registry.find(kKey);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->state, State::refused);
  EXPECT_EQ(found->reason.find('\n'), std::string::npos);
}

// A limit stands for a full disk: the write fails after its first byte.
TEST_F(RegistryTest, AFullDiskLeavesTheOldRecord) {
  ASSERT_TRUE(registry.store(kKey, kRefused));
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 1;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto stored = registry.store(kKey, {State::admitted, AdmissionLevel::loads, "", 1, ""});
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_FALSE(stored);
  expect_same(registry.find(kKey), kRefused);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), fs::directory_iterator()), 1)
      << "no temporary file is left";
}

TEST_F(RegistryTest, AReadOnlyFolderCanStillBeRead) {
  ASSERT_TRUE(registry.store(kKey, kRefused));
  ASSERT_EQ(chmod(folder.c_str(), 0500), 0);
  const auto opened = Registry::open(folder);
  ASSERT_TRUE(opened);
  expect_same(opened->find(kKey), kRefused);
  if (geteuid() != 0) {
    EXPECT_FALSE(opened->store(kKey, kRefused));
  }
  ASSERT_EQ(chmod(folder.c_str(), 0700), 0);
}

TEST_F(RegistryTest, WhatNobodyUsedFor90DaysIsForgotten) {
  ASSERT_TRUE(registry.store(kKey, kRefused));
  const std::string other = std::string(64, 'b') + kKey.substr(64);
  ASSERT_TRUE(registry.store(other, kRefused));
  const auto age = [&](const fs::path& path, int days) {
    const timespec old[2] = {{std::time(nullptr) - days * 24 * 60 * 60, 0},
                             {std::time(nullptr) - days * 24 * 60 * 60, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), old, 0), 0);
  };
  age(file, 89);
  age(folder / (other + ".txt"), 91);
  fakes::overwrite_file(folder / "thesis.tex", "not the registry's");
  age(folder / "thesis.tex", 1000);
  registry.forget_unused();
  EXPECT_TRUE(fs::exists(folder / "thesis.tex"));
  EXPECT_TRUE(registry.find(kKey));
  EXPECT_FALSE(registry.find(other));
  registry.forget_unused();
  struct stat status {};
  ASSERT_EQ(stat(file.c_str(), &status), 0);
  EXPECT_GT(status.st_mtim.tv_sec, std::time(nullptr) - 60) << "finding it is a use";
}

TEST_F(RegistryTest, ReadersSeeWholeRecordsWhileOthersWrite) {
  std::atomic<bool> stop = false;
  ASSERT_TRUE(registry.store(kKey, kRefused));
  std::vector<std::thread> writers;
  for (int n = 0; n < 3; ++n)
    writers.emplace_back([&] {
      while (!stop) EXPECT_TRUE(registry.store(kKey, kRefused));
    });
  for (int n = 0; n < 2000; ++n) EXPECT_TRUE(registry.find(kKey));
  stop = true;
  for (auto& writer : writers) writer.join();
}

TEST_F(RegistryTest, ARegistryThatIsNotOpenKeepsNothing) {
  const Registry none;
  EXPECT_TRUE(none.store(kKey, kRefused));
  EXPECT_EQ(none.find(kKey), std::nullopt);
  none.forget(kKey);
  none.forget_unused();
}

TEST(Machine, OtherOptionsAndOtherProbesAreOtherMachines) {
  const std::string machine = machine_text("/bin/true", {});
  EXPECT_EQ(machine_key(machine, "").size(), 16);
  EXPECT_EQ(machine_key(machine, ""), machine_key(machine_text("/bin/true", {}), ""));
  EXPECT_NE(machine_key(machine, ""), machine_key(machine, "a=b\n"));
  EXPECT_NE(machine_key(machine, ""), machine_key(machine_text("/bin/false", {}), ""));
  EXPECT_THAT(machine, HasSubstr("flags"));
}

}  // namespace
}  // namespace attnrt::core
