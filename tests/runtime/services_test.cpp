// tests/runtime/services_test.cpp: the log on stderr, and the threads that a runtime is given
#include "services.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/threads.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::HasSubstr;

TEST(Services, TheLogGoesToStderrFromItsLevelOn) {
  const fakes::Directory plugins;
  plugins.add("fake_open_fails");
  const auto printed = [](Runtime& runtime) {
    ::testing::internal::CaptureStderr();
    (void)chosen(runtime);
    return ::testing::internal::GetCapturedStderr();
  };
  const auto open = [&plugins] {
    return Runtime::open({.policy_text = "", .plugin_path = plugins.text()});
  };
  const auto runtime = open();
  ASSERT_TRUE(runtime);
  EXPECT_THAT(printed(**runtime), HasSubstr("attnrt: warning: load: "));
  const Variable level("ATTNRT_LOG", "error");
  const auto quiet = open();
  ASSERT_TRUE(quiet);
  EXPECT_EQ(printed(**quiet), "");
}

TEST(Services, OptionsComeBeforeThePolicy) {
  Config config;
  config.threads.value = 3;
  config.log_level.value = ATTNRT_LOG_INFO;
  EXPECT_EQ(make_services({.thread_count = 1}, config)->threads->count(), 1);
  const auto services = make_services({}, config);
  EXPECT_EQ(services->threads->count(), std::min(3, Threads::pool(0)->count()));
  EXPECT_TRUE(services->logs_info());
  EXPECT_FALSE(services->logs_debug());
}

}  // namespace
}  // namespace attnrt::core
