// tests/runtime/reload_pressure_test.cpp: opens and reloads that cannot look, and change nothing
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "support/failing_calls.hpp"
#include "support/sanitized.hpp"
#include "support/tensors.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// Leaves this process a number of free descriptors, until it is destroyed.
class FewDescriptors {
 public:
  explicit FewDescriptors(size_t free) {
    getrlimit(RLIMIT_NOFILE, &before_);
    rlimit fewer = before_;
    fewer.rlim_cur = 64;
    setrlimit(RLIMIT_NOFILE, &fewer);
    for (;;) {
      const int file = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
      if (file < 0) break;
      taken_.emplace_back(file);
    }
    if (taken_.size() < free) throw std::runtime_error("too few descriptors");
    taken_.resize(taken_.size() - free);
  }
  FewDescriptors(const FewDescriptors&) = delete;
  FewDescriptors& operator=(const FewDescriptors&) = delete;
  ~FewDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  struct Taken : Descriptor {
    using Descriptor::Descriptor;
    Taken() : Descriptor(-1) {}
  };
  rlimit before_{};
  std::vector<Taken> taken_;
};

RuntimeOptions options_for(const fakes::Directory& plugins) {
  return {.thread_count = 1,
          .policy_text = "schema: 1\n",
          .plugin_path = plugins.text(),
          .log = [](int32_t, const std::string&) {}};
}

TEST(ReloadPressure, FewFreeDescriptors) {
  if (kAddressSanitizer) GTEST_SKIP() << "UBSan takes descriptors to look at types";
  for (const size_t free : {0, 1, 2, 3}) {
    TestRuntime runtime({"fake_full"}, "", {.policy_text = "schema: 1\n"});
    ASSERT_EQ(chosen(*runtime), "fake_full 1.0.0");
    const auto before = runtime->snapshot();
    runtime.plugins.add("fake_minimal");
    {
      const FewDescriptors few(free);
      const auto reloaded = runtime->reload();
      EXPECT_EQ(bool(reloaded), free > 0) << free;
      if (!reloaded) {
        EXPECT_EQ(reloaded.error().code, ATTNRT_INTERNAL);
        EXPECT_THAT(reloaded.error().message, HasSubstr("Too many open files; try again"));
        EXPECT_EQ(runtime->snapshot(), before);
      }
      EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
    }
    ASSERT_TRUE(runtime->reload());
    EXPECT_EQ(chosen(*runtime, kAny, "fake_minimal"), "fake_minimal 1.0.0");
    EXPECT_EQ(chosen(*runtime, kAny, "fake_full"), "fake_full 1.0.0");
  }
}

TEST(ReloadPressure, OpenWithFewFreeDescriptors) {
  if (kAddressSanitizer) GTEST_SKIP() << "UBSan takes descriptors to look at types";
  const fakes::Directory plugins;
  plugins.add("fake_full");
  for (const size_t free : {0, 1, 2, 3}) {
    const FewDescriptors few(free);
    const auto opened = Runtime::open(options_for(plugins));
    EXPECT_EQ(bool(opened), free > 0) << free;
    if (opened) {
      EXPECT_THAT((*opened)->snapshot()->entries, SizeIs(1));
    }
  }
}

TEST(ReloadPressure, MorePluginsThanDescriptors) {
  const fakes::Directory plugins;
  const std::string bytes = fakes::read_file(fakes::fake("fake_full"));
  constexpr size_t kPlugins = 100;
  for (size_t n = 0; n < kPlugins; ++n)
    plugins.write(fmt::format("{:03}.so", n), bytes + fmt::format("{:04}", n));
  const FewDescriptors few(8);
  const auto opened = Runtime::open(options_for(plugins));
  ASSERT_TRUE(opened) << opened.error().message;
  const auto rows = (*opened)->plugins();
  ASSERT_THAT(rows, SizeIs(kPlugins));
  for (const auto& row : rows) EXPECT_EQ(row.state, "ready") << row.reason;
}

// Makes each call of a reload fail in turn, for each reason that says nothing about a file.
TEST(ReloadPressure, ACallThatFailsForLackOfSomething) {
  TestRuntime runtime({"fake_full", "fake_minimal"}, "", {.policy_text = "schema: 1\n"});
  ASSERT_EQ(chosen(*runtime), "fake_full 1.0.0");
  int64_t failures = 0;
  for (const auto& [call, errors] : std::vector<std::pair<std::string, std::vector<int>>>{
           {"open", {EMFILE, ENFILE, ENOMEM, EIO}},
           {"opendir", {EMFILE, ENFILE, ENOMEM, EIO}},
           {"readdir", {EIO}},
           {"fstat", {EIO, ENOMEM}},
           {"stat", {EIO, ENOMEM}},
           {"pread", {EIO, ENOMEM}},
           {"realpath", {EIO, ENOMEM}},
           {"mmap", {ENOMEM, EAGAIN}}}) {
    for (const int error : errors) {
      for (int64_t n = 1;; ++n) {
        const auto before = runtime->snapshot();
        bool happened = false;
        Result<void> reloaded;
        {
          const FailingCall failing(call, error, n);
          reloaded = runtime->reload();
          happened = failing.happened();
        }
        if (!happened) break;
        ++failures;
        const std::string what = fmt::format("{} {}: {}", call, n, std::strerror(error));
        EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0") << what;
        if (reloaded) {  // libelf has other ways to read
          for (const auto& plugin : runtime->snapshot()->found.plugins)
            EXPECT_EQ(plugin->fault + plugin->present_fault, "") << what;
          continue;
        }
        EXPECT_EQ(reloaded.error().code, error == ENOMEM ? ATTNRT_OUT_OF_MEMORY : ATTNRT_INTERNAL)
            << what << ": " << reloaded.error().message;
        EXPECT_EQ(runtime->snapshot(), before) << what;
      }
    }
  }
  EXPECT_GT(failures, 60);
}

TEST(ReloadPressure, ADirectoryThatVanished) {
  TestRuntime runtime({"fake_full"}, "", {.policy_text = "schema: 1\n"});
  ASSERT_EQ(chosen(*runtime), "fake_full 1.0.0");
  const auto before = runtime->snapshot();
  const std::string folder = runtime.plugins.text(), elsewhere = folder + "_moved";
  std::filesystem::rename(folder, elsewhere);
  const auto reloaded = runtime->reload();
  std::filesystem::rename(elsewhere, folder);
  ASSERT_FALSE(reloaded);
  EXPECT_EQ(reloaded.error().code, ATTNRT_INTERNAL);
  EXPECT_THAT(reloaded.error().message,
              HasSubstr(folder + ": cannot be read: No such file or directory, but could be read "
                                 "before; put it back"));
  EXPECT_EQ(runtime->snapshot(), before);
  EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
  EXPECT_TRUE(runtime->reload());
}

TEST(ReloadPressure, ADirectoryThatWasNeverThereIsAWarning) {
  const fakes::Directory plugins;
  plugins.add("fake_full");
  std::vector<std::string> log;
  RuntimeOptions options = options_for(plugins);
  options.plugin_path = plugins.text() + ":" + plugins.text() + "/none";
  options.log = [&log](int32_t, const std::string& line) { log.push_back(line); };
  const auto opened = Runtime::open(std::move(options));
  ASSERT_TRUE(opened);
  EXPECT_THAT(log, Contains(HasSubstr("/none: cannot be read: No such file or directory")));
  log.clear();
  EXPECT_TRUE((*opened)->reload());
  EXPECT_THAT(log, Contains(HasSubstr("/none: cannot be read: No such file or directory")));
}

// A plugin that only has a file's headers costs a few pages, whatever its size is.
TEST(ReloadPressure, LargeFilesThatAreNoPlugins) {
  const fakes::Directory plugins;
  const auto sparse = [&plugins](const char* name, const std::string& bytes, uintmax_t size) {
    std::filesystem::resize_file(plugins.write(name, bytes), size);
  };
  const std::string whole = fakes::read_file(fakes::fake("fake_full"));
  sparse("magic.so", whole.substr(0, 64), uintmax_t{900} << 20);
  sparse("no_manifest.so", fakes::read_file(fakes::fake("fake_no_section")), uintmax_t{900} << 20);
  sparse("too_large.so", whole, uintmax_t{3} << 30);
  sparse("zeros.so", "", uintmax_t{900} << 20);
  bytes_read = 0;
  const Discovery found = discover({plugins.text()}).value();
  EXPECT_LT(bytes_read, 1 << 20);
  ASSERT_THAT(found.plugins, SizeIs(4));
  EXPECT_EQ(found.plugins[2]->fault,
            "has 3221225472 bytes; a plugin has at most 1073741824 (1 GiB)");
  for (const auto& plugin : found.plugins) EXPECT_NE(plugin->fault, "") << plugin->path;
}

TEST(ReloadPressure, UnchangedFilesAreNotReadAgain) {
  // These files were built a while ago. Those of a directory of the test are so new that a further
  // change might not show in their times.
  const Discovery first = discover({ATTNRT_FAKES_DIR}).value();
  bytes_read = 0;
  const Discovery second = discover({ATTNRT_FAKES_DIR}, &first).value();
  EXPECT_EQ(bytes_read, 0);
  EXPECT_EQ(first.plugins, second.plugins);
}

TEST(ReloadPressure, AChangeInTheSameMomentIsSeen) {
  const fakes::Directory plugins;
  const std::string bytes = fakes::read_file(fakes::fake("fake_full"));
  plugins.write("plugin.so", bytes + "0");
  Discovery last = discover({plugins.text()}).value();
  for (const char digit : {'1', '2', '3', '4', '5'}) {
    plugins.write("plugin.so", bytes + digit);
    Discovery next = discover({plugins.text()}, &last).value();
    EXPECT_NE(next.plugins[0]->hash, last.plugins[0]->hash) << digit;
    last = std::move(next);
  }
}

// The kernel's own copy of the program's path does, where /proc is not mounted.
TEST(ReloadPressure, TheDefaultDirectoryWithoutProc) {
  const std::string usual = default_plugin_directory();
  const FailingCall failing("realpath", ENOENT);
  EXPECT_EQ(default_plugin_directory(), usual);
  EXPECT_TRUE(failing.happened());
  EXPECT_THAT(usual, HasSubstr("attnrt/plugins"));
}

}  // namespace
}  // namespace attnrt::core
