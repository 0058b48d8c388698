// tests/runtime/cli/io/output_file_test.cpp: where outputs go, and what killed processes leave
#include "cli/io/output_file.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>
#include <string_view>
#include <vector>

#include "fakes/fakes.hpp"

namespace attnrt::cli {
namespace {

namespace fs = std::filesystem;

class OutputFile : public ::testing::Test {
 protected:
  OutputPath output(const std::string& name) const {
    return resolve_output("--output", directory.text() + "/" + name, {}).value();
  }
  std::set<std::string> files() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory.path()))
      names.insert(entry.path().filename());
    return names;
  }
  // Writes to the output in a process that is killed in the middle: as soon as there is another
  // file. It would write for minutes.
  void write_and_be_killed(const std::string& name) const {
    const OutputPath to = output(name);
    const size_t before = files().size();
    const std::string bytes(1 << 16, 'x');
    const std::vector<std::string_view> pieces(1 << 20, bytes);
    const pid_t child = fork();
    if (child == 0) {
      (void)write_file(to, pieces);
      _exit(0);
    }
    while (files().size() == before && waitpid(child, nullptr, WNOHANG) == 0) usleep(1000);
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << status;
  }

  const fakes::Directory directory;
};

TEST_F(OutputFile, AKilledWriterLeavesAFileThatTheNextOneRemoves) {
  for (const std::string& name : {std::string("x"), std::string(250, 'n')}) {
    directory.write(name, "old");
    write_and_be_killed(name);
    ASSERT_EQ(files().size(), 2U) << "the killed writer must have left its file";
    EXPECT_EQ(fakes::read_file(directory.text() + "/" + name), "old");
    ASSERT_TRUE(write_file(output("y"), {"new"}));
    EXPECT_EQ(files(), (std::set<std::string>{name, "y"}));
    fs::remove(directory.path() / name);
    fs::remove(directory.path() / "y");
  }
}

TEST_F(OutputFile, WhatAnotherProcessIsWritingStays) {
  const std::string path = directory.write(".x.attnrt-123", "half");
  const int held = open(path.c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(flock(held, LOCK_EX), 0);
  ASSERT_TRUE(write_file(output("x"), {"whole"}));
  EXPECT_EQ(files(), (std::set<std::string>{".x.attnrt-123", "x"}));
  close(held);
  ASSERT_TRUE(write_file(output("x"), {"whole"}));
  EXPECT_EQ(files(), (std::set<std::string>{"x"}));
}

TEST_F(OutputFile, FilesOfOtherNamesStay) {
  const std::set<std::string> others = {".attnrt-1",    "x.attnrt-1",   ".x.attnrt-",
                                        ".x.attnrt-1a", ".x.attnrt-.1", ".x.attnrt1"};
  for (const std::string& name : others) directory.write(name, "");
  fs::create_symlink("absent", directory.path() / ".link.attnrt-1");
  fs::create_directory(directory.path() / ".folder.attnrt-1");
  ASSERT_TRUE(write_file(output("x"), {"whole"}));
  std::set<std::string> expected = others;
  expected.insert({".link.attnrt-1", ".folder.attnrt-1", "x"});
  EXPECT_EQ(files(), expected);
}

// The path is that of the moment when it was resolved.
TEST_F(OutputFile, AnotherWorkingDirectoryDoesNotMoveIt) {
  const fs::path before = fs::current_path();
  const fakes::Directory elsewhere;
  fs::current_path(directory.path());
  const auto resolved = resolve_output("--output", "x", {});
  fs::current_path(elsewhere.path());
  ASSERT_TRUE(resolved);
  EXPECT_TRUE(write_file(*resolved, {"whole"}));
  fs::current_path(before);
  EXPECT_EQ(files(), (std::set<std::string>{"x"}));
  EXPECT_TRUE(fs::is_empty(elsewhere.path()));
}

TEST_F(OutputFile, IsNoInput) {
  const std::string input = directory.write("in", "");
  fs::create_symlink("in", directory.path() / "link");
  for (const char* name : {"in", "./in", "link"}) {
    const auto resolved = resolve_output("--html", directory.text() + "/" + name,
                                         {{"--grid", std::nullopt}, {"ATTNRT_POLICY", input}});
    ASSERT_FALSE(resolved);
    EXPECT_EQ(resolved.error().code, ATTNRT_INVALID_ARGUMENT);
    EXPECT_EQ(resolved.error().message,
              "--html " + directory.text() + "/" + name +
                  " is the file of ATTNRT_POLICY, which it would replace; give another name");
  }
  EXPECT_TRUE(resolve_output("--html", directory.text() + "/other", {{"--grid", input}}));
}

}  // namespace
}  // namespace attnrt::cli
