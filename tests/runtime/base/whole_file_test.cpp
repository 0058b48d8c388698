// tests/runtime/base/whole_file_test.cpp: files that are there as a whole or not at all
#include "base/whole_file.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <iterator>

#include "base/utc.hpp"
#include "fakes/fakes.hpp"

namespace attnrt::core {
namespace {

namespace fs = std::filesystem;
using fakes::Directory;
using fakes::read_file;

size_t files_in(const Directory& directory) {
  return static_cast<size_t>(
      std::distance(fs::directory_iterator(directory.path()), fs::directory_iterator()));
}

TEST(WholeFile, IsItsOwnersAloneWhateverTheUmask) {
  const Directory directory;
  const fs::path path = directory.path() / "stats.json";
  const mode_t before = umask(0);
  EXPECT_TRUE(write_whole(path, "one"));
  umask(before);
  EXPECT_EQ(read_file(path), "one");
  struct stat status {};
  ASSERT_EQ(stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600U);
  EXPECT_TRUE(write_whole(path, "")) << "replaces what is there";
  EXPECT_EQ(read_file(path), "");
  EXPECT_EQ(files_in(directory), 1U);
}

TEST(WholeFile, LongNamesHaveTemporaryNames) {
  const Directory directory;
  EXPECT_TRUE(write_whole(directory.path() / std::string(255, 'x'), "one"));
  EXPECT_EQ(files_in(directory), 1U);
}

TEST(WholeFile, ReplacesNothingButRegularFiles) {
  const Directory directory;
  const fs::path target = directory.write("target", "kept");
  fs::create_symlink(target, directory.path() / "link");
  fs::create_directory(directory.path() / "folder");
  ASSERT_EQ(mkfifo((directory.path() / "pipe").c_str(), 0600), 0);
  for (const char* name : {"link", "folder", "pipe"}) {
    const auto written = write_whole(directory.path() / name, "new");
    ASSERT_FALSE(written) << name;
    EXPECT_EQ(written.error().message, "cannot be written: it is there and not a regular file");
  }
  EXPECT_EQ(read_file(target), "kept");
  EXPECT_EQ(files_in(directory), 4U);
}

TEST(WholeFile, LeavesWhatWasThereIfItCannotBeWritten) {
  const Directory directory;
  const auto absent = write_whole(directory.path() / "absent" / "file", "one");
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().message, "cannot be written: No such file or directory");

  const fs::path path = directory.write("file", "kept");
  // In a child, since the limit is the process's. Exits 0 if the writer lived and said so.
  EXPECT_EXIT(
      {
        rlimit limit{};
        limit.rlim_cur = limit.rlim_max = 16;
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(2);
        const auto written = write_whole(path, std::string(17, 'x'));
        const std::string expected =
            "cannot be written: it has 17 bytes; this process may write files of 16 (ulimit -f)";
        _exit(!written && written.error().message == expected ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
  EXPECT_EQ(read_file(path), "kept");
  EXPECT_EQ(files_in(directory), 1U);
}

TEST(Utc, HasMilliseconds) {
  using std::chrono::milliseconds;
  const auto text = [](int64_t since_epoch) {
    return utc_text(std::chrono::system_clock::time_point(milliseconds(since_epoch)));
  };
  EXPECT_EQ(text(0), "1970-01-01T00:00:00.000Z");
  EXPECT_EQ(text(1'796'097'600'007), "2026-12-01T04:00:00.007Z");
  EXPECT_EQ(text(-1), "1969-12-31T23:59:59.999Z");
}

}  // namespace
}  // namespace attnrt::core
