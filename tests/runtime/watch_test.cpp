// tests/runtime/watch_test.cpp: which changes make a reload due, and when
#include "watch.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "fakes/fakes.hpp"

namespace {
int add_watch_error = 0;  // that inotify_add_watch fails with; 0: it does not
}

extern "C" int inotify_add_watch(int descriptor, const char* path, uint32_t mask) noexcept {
  if (add_watch_error != 0) return errno = add_watch_error, -1;
  return static_cast<int>(syscall(SYS_inotify_add_watch, descriptor, path, mask));
}

namespace attnrt::core {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr WatchTimes kTimes{50ms, 1000ms};
constexpr auto kSoon = 10s;  // of a machine that does much else

class WatchTest : public ::testing::Test {
 protected:
  WatchTest() {
    fs::create_directories(plugins);
    fs::create_directories(etc);
    write(policy, "schema: 1\n");
  }

  static void write(const fs::path& path, const std::string& text) {
    fakes::overwrite_file(path, text);
  }

  // Watches the folder `plugins` and the file `policy`, and has done its first reload.
  void begin(WatchTimes times = kTimes) {
    auto opened = Watch::open(times);
    ASSERT_TRUE(opened) << opened.error().message;
    watch = *std::move(opened);
    follow();
    ASSERT_TRUE(becomes_due()) << "what changed before was not seen";
  }

  void follow() { EXPECT_EQ(watch->follow({{plugins}, policy}), ""); }

  bool becomes_due(std::chrono::milliseconds within = kSoon) const {
    const auto end = Clock::now() + within;
    for (;;) {
      const auto rest = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now());
      if (rest <= 0ms) return false;
      pollfd waited{watch->descriptor(), POLLIN, 0};
      if (poll(&waited, 1, static_cast<int>(rest.count())) > 0 && watch->handle()) return true;
    }
  }

  bool stays_quiet() const { return !becomes_due(4 * kTimes.quiet); }

  fakes::Directory root;
  fs::path plugins = root.path() / "lib" / "plugins", etc = root.path() / "etc";
  fs::path policy = etc / "policy.yaml";
  std::unique_ptr<Watch> watch;
};

TEST_F(WatchTest, AReloadIsDueOnceWhenPathsAreNew) {
  begin();
  EXPECT_TRUE(stays_quiet());
  follow();
  EXPECT_TRUE(stays_quiet()) << "the same paths again";
}

TEST_F(WatchTest, EachChangeOfAPluginFile) {
  const fs::path file = plugins / "a.so", other = plugins / "b.so", outside = root.path() / "c.so";
  write(outside, "c");
  begin();
  write(file, "a");
  EXPECT_TRUE(becomes_due()) << "it comes";
  write(file, "b");
  EXPECT_TRUE(becomes_due()) << "it is overwritten in place";
  EXPECT_EQ(truncate(file.c_str(), 0), 0);
  EXPECT_TRUE(becomes_due()) << "it is truncated";
  fs::rename(file, other);
  EXPECT_TRUE(becomes_due()) << "it gets another name";
  fs::rename(outside, other);
  EXPECT_TRUE(becomes_due()) << "another file takes its place";
  fs::permissions(other, fs::perms::owner_read);
  EXPECT_TRUE(becomes_due()) << "its permissions change";
  fs::create_hard_link(other, file);
  EXPECT_TRUE(becomes_due()) << "a link comes";
  fs::remove(other);
  EXPECT_TRUE(becomes_due()) << "it goes";
  write(plugins / "a.so.minisig", "signature");
  EXPECT_TRUE(becomes_due()) << "a signature comes";
  EXPECT_TRUE(stays_quiet());
}

TEST_F(WatchTest, EachChangeOfThePolicy) {
  begin();
  write(policy, "schema: 1 # in place\n");
  EXPECT_TRUE(becomes_due());
  write(etc / ".policy.yaml.swp", "schema: 1\n");
  fs::rename(etc / ".policy.yaml.swp", policy);
  EXPECT_TRUE(becomes_due()) << "as editors do";
  fs::remove(policy);
  EXPECT_TRUE(becomes_due());
  write(policy, "schema: 1\n");
  EXPECT_TRUE(becomes_due());
}

TEST_F(WatchTest, OtherFilesDoNotMatter) {
  begin();
  write(plugins / "README", "text");
  write(etc / "other.yaml", "schema: 1\n");
  write(root.path() / "lib" / "a.so", "no plugin directory");
  fs::create_directory(root.path() / "var");
  std::ifstream(policy).get();
  EXPECT_TRUE(stays_quiet());
}

TEST_F(WatchTest, ALinkThatIsTurnedElsewhere) {
  const fs::path current = root.path() / "current", next = root.path() / "next";
  fs::create_directories(root.path() / "v1" / "plugins");
  fs::create_directories(root.path() / "v2" / "plugins");
  fs::create_directory_symlink("v1", current);
  plugins = current / "plugins";
  // As a ConfigMap: policy.yaml -> ..data/policy.yaml, and ..data is exchanged.
  fs::remove(policy);
  fs::create_directories(etc / "..1");
  fs::create_directories(etc / "..2");
  write(etc / "..1" / "policy.yaml", "schema: 1\n");
  write(etc / "..2" / "policy.yaml", "schema: 1\n");
  fs::create_directory_symlink("..1", etc / "..data");
  fs::create_symlink("..data/policy.yaml", policy);
  begin();
  write(root.path() / "v1" / "plugins" / "a.so", "a");
  EXPECT_TRUE(becomes_due());
  write(etc / "..1" / "policy.yaml", "schema: 1\n");
  EXPECT_TRUE(becomes_due());
  fs::create_directory_symlink("v2", next);
  fs::rename(next, current);
  EXPECT_TRUE(becomes_due());
  fs::create_directory_symlink("..2", etc / "..new");
  fs::rename(etc / "..new", etc / "..data");
  EXPECT_TRUE(becomes_due());
  follow();  // what a reload does
  EXPECT_TRUE(becomes_due()) << "of folders that were not watched before";
  write(root.path() / "v2" / "plugins" / "a.so", "a");
  EXPECT_TRUE(becomes_due());
  write(root.path() / "v1" / "plugins" / "a.so", "of an old release");
  EXPECT_TRUE(stays_quiet());
}

TEST_F(WatchTest, ADirectoryThatVanishesAndComesBack) {
  for (const fs::path& gone : {plugins, plugins.parent_path()}) {
    begin();
    fs::remove_all(gone);
    EXPECT_TRUE(becomes_due()) << gone;
    follow();
    EXPECT_TRUE(stays_quiet());
    for (const fs::path& back : std::set{gone, plugins}) {
      fs::create_directory(back);
      EXPECT_TRUE(becomes_due()) << back;
      follow();
      EXPECT_TRUE(becomes_due()) << "of a folder that was not watched before: " << back;
    }
    write(plugins / "a.so", "a");
    EXPECT_TRUE(becomes_due());
    fs::rename(gone, root.path() / "moved");
    EXPECT_TRUE(becomes_due());
    fs::rename(root.path() / "moved", gone);
    EXPECT_TRUE(becomes_due());
    fs::remove_all(plugins);
    fs::create_directories(plugins);
  }
}

TEST_F(WatchTest, ADirectoryThatWasNeverThere) {
  plugins = root.path() / "one" / "two" / "three";
  begin();
  fs::create_directories(plugins);
  EXPECT_TRUE(becomes_due());
  follow();
  EXPECT_TRUE(becomes_due());
  write(plugins / "a.so", "a");
  EXPECT_TRUE(becomes_due());
}

TEST_F(WatchTest, LinksThatGoInCircles) {
  fs::create_symlink("loop", root.path() / "loop");
  plugins = root.path() / "loop" / "plugins";
  begin();
  EXPECT_TRUE(stays_quiet());
}

TEST_F(WatchTest, PathsThatAreNoLongerFollowedDoNotMatter) {
  begin();
  const fs::path before = plugins;
  plugins = root.path() / "others";
  fs::create_directory(plugins);
  EXPECT_TRUE(stays_quiet()) << "it is not watched yet";
  follow();
  EXPECT_TRUE(becomes_due());
  write(before / "a.so", "a");
  EXPECT_TRUE(stays_quiet());
  write(plugins / "a.so", "a");
  EXPECT_TRUE(becomes_due());
}

TEST_F(WatchTest, QuietTimeBeginsAnewWithEachChange) {
  constexpr WatchTimes times{1000ms, 60s};
  begin(times);
  for (int n = 0; n < 5; ++n) {
    write(plugins / "a.so", std::to_string(n));
    EXPECT_FALSE(becomes_due(50ms));
  }
  const auto last = Clock::now();
  write(plugins / "a.so", "last");
  EXPECT_TRUE(becomes_due());
  EXPECT_GE(Clock::now() - last, times.quiet);
}

TEST_F(WatchTest, ChangesThatNeverCeaseDoNotPostponeForEver) {
  constexpr WatchTimes times{10s, 300ms};
  begin(times);
  for (int round = 0; round < 3; ++round) {
    const auto begun = Clock::now();
    bool due = false;
    while (!due && Clock::now() - begun < kSoon) {
      write(plugins / "a.so", "a");
      due = becomes_due(1ms);
    }
    EXPECT_TRUE(due);
    EXPECT_GE(Clock::now() - begun, times.most);
  }
}

TEST_F(WatchTest, AFileThatIsOpenForWritingIsWaitedForAsFarAsTheTimeLasts) {
  begin({20ms, 60s});
  {
    std::ofstream file(plugins / "a.so");
    file << "first part" << std::flush;
    EXPECT_FALSE(becomes_due(100ms)) << "quiet, but not closed";
  }
  EXPECT_TRUE(becomes_due()) << "closed";
  constexpr WatchTimes times{20ms, 600ms};
  begin(times);
  std::ofstream file(plugins / "a.so");
  file << "first part" << std::flush;
  const auto begun = Clock::now();
  EXPECT_TRUE(becomes_due());
  EXPECT_GE(Clock::now() - begun, times.most - 50ms);
  file.close();
  EXPECT_TRUE(becomes_due()) << "and again when it is complete";
}

TEST_F(WatchTest, HalfOfAPolicyIsNotTaken) {
  constexpr WatchTimes times{20ms, 300ms};
  begin(times);
  {
    std::ofstream file(policy);  // empty now, which is a policy, too
    write(plugins / "a.so", "a");
    EXPECT_FALSE(becomes_due(2 * times.most)) << "it is not complete";
  }
  EXPECT_TRUE(becomes_due());
  // From here on a reload reads the policy.
  EXPECT_FALSE(watch->policy_changed());
  write(plugins / "a.so", "b");
  EXPECT_FALSE(watch->policy_changed()) << "plugins are checked when they are read";
  EXPECT_TRUE(becomes_due());
  write(policy, "schema: 1\n");
  EXPECT_TRUE(watch->policy_changed());
  EXPECT_TRUE(becomes_due());
  EXPECT_FALSE(watch->policy_changed());
}

TEST_F(WatchTest, EventsThatWereLostMayHaveMattered) {
  int64_t most = 0;
  std::ifstream("/proc/sys/fs/inotify/max_queued_events") >> most;
  if (most <= 0 || most > 200'000) GTEST_SKIP() << "the queue holds " << most;
  begin();
  std::ofstream one(plugins / "one.txt"), other(plugins / "other.txt");
  for (int64_t n = 0; n < most; ++n) {  // equal events that follow each other count once
    one << 'x' << std::flush;
    other << 'x' << std::flush;
  }
  EXPECT_TRUE(becomes_due());
  EXPECT_TRUE(stays_quiet());
}

TEST_F(WatchTest, ItIsTriedAgainAfterATime) {
  begin();
  watch->again_after(200ms);
  EXPECT_FALSE(becomes_due(100ms));
  EXPECT_TRUE(becomes_due());
  watch->again_after(60s);
  EXPECT_TRUE(stays_quiet());
  write(plugins / "a.so", "a");
  EXPECT_TRUE(becomes_due()) << "a change comes first";
}

TEST_F(WatchTest, WithoutDescriptors) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const int lowest = dup(0);
  close(lowest);
  // One more each time: inotify, then the timer, then what joins them.
  for (rlim_t more = 0; more < 3; ++more) {
    const rlimit none{static_cast<rlim_t>(lowest) + more, before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    const auto opened = Watch::open(kTimes);
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code, ATTNRT_INTERNAL);
    EXPECT_THAT(opened.error().message, StartsWith("watch: "));
    EXPECT_THAT(opened.error().message, HasSubstr("Too many open files (ulimit -n, or fs.inotify"));
  }
  const int after = dup(0);
  close(after);
  EXPECT_EQ(after, lowest) << "none is kept";
}

TEST_F(WatchTest, WithoutWatches) {
  begin();
  add_watch_error = ENOSPC;
  const std::string missing = watch->follow({{plugins}, policy});
  add_watch_error = 0;
  EXPECT_EQ(missing,
            "watch: /: No space left on device (fs.inotify.max_user_watches); changes there need a "
            "reload");
  EXPECT_TRUE(stays_quiet());
  follow();
  EXPECT_TRUE(becomes_due()) << "it works again, and something may have changed meanwhile";
}

}  // namespace
}  // namespace attnrt::core
