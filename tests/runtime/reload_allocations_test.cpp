// tests/runtime/reload_allocations_test.cpp: opens, reloads and questions whose allocations fail
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <new>

#include "support/allocations.hpp"
#include "support/tensors.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::SizeIs;

class ReloadAllocations : public ::testing::TestWithParam<bool> {  // whether the failure lasts
 protected:
  void SetUp() override {
#ifdef ATTNRT_TEST_SANITIZED
    GTEST_SKIP() << "a sanitizer's malloc cannot be replaced";
#endif
  }

  // What the call says: OK, OUT_OF_MEMORY, or another error, which fails the test.
  template <class Call>
  static attnrt_status status_of(int64_t n, Call&& call) {
    try {
      const auto done = call();
      if (done || done.error().code == ATTNRT_OUT_OF_MEMORY)
        return done ? ATTNRT_OK : ATTNRT_OUT_OF_MEMORY;
      ADD_FAILURE() << "allocation " << n << ": " << done.error().message;
      return done.error().code;
    } catch (const std::bad_alloc&) {
      return ATTNRT_OUT_OF_MEMORY;
    }
  }

  static RuntimeOptions options_for(const fakes::Directory& plugins, const std::string& policy) {
    return {.thread_count = 1,
            .policy_path = policy,
            .plugin_path = plugins.text(),
            .log = [](int32_t, const std::string&) {}};
  }

  // Fails each allocation of `call` in turn, and calls check after each.
  template <class Call, class Check>
  void each(const char* what, Call&& call, Check&& check) {
    int64_t out_of_memory = 0;
    attnrt_status status = ATTNRT_OK;
    const int64_t failures =
        for_each_failing_allocation([&](int64_t n) { status = status_of(n, call); },
                                    [&](int64_t n) {
                                      out_of_memory += status == ATTNRT_OUT_OF_MEMORY;
                                      check(n, status);
                                    },
                                    GetParam());
    EXPECT_GT(failures, 100) << what;
    EXPECT_GT(out_of_memory, failures / 2) << what;
    fmt::print("{}: {} failures, {} of them reported\n", what, failures, out_of_memory);
  }

  fakes::Directory plugins;
  fakes::Directory files;
  // Every part of a policy, since each is read with allocations.
  const std::string policy = files.write("policy.yaml",
                                         "schema: 1\n"
                                         "backends:\n"
                                         "  fake_full: {priority: 300, version: '>=1', only: "
                                         "{head_dim: {max: 256}}, options: {note: hello}}\n"
                                         "  fake_minimal: {priority: 100}\n"
                                         "rules: [{name: tiny, when: {seq_q: {max: 1}}, prefer: "
                                         "[fake_minimal]}]\n");
};

TEST_P(ReloadAllocations, Open) {
  plugins.add("fake_full");
  plugins.write("broken.so", "text");
  std::unique_ptr<Runtime> opened;
  const auto call = [&]() -> Result<void> {
    auto runtime = Runtime::open(options_for(plugins, policy));
    if (!runtime) return tl::unexpected(runtime.error());
    opened = *std::move(runtime);
    return {};
  };
  const auto check = [&](int64_t n, attnrt_status status) {
    if (status != ATTNRT_OK) return;
    EXPECT_EQ(chosen(*opened), "fake_full 1.0.0") << n;
    EXPECT_EQ(opened->plugins().at(0).reason, "is not an ELF file; a plugin is a shared library")
        << n;
  };
  each("open", call, check);
}

TEST_P(ReloadAllocations, Reload) {
  plugins.add("fake_full");
  plugins.add("fake_versions-1.0.0");
  auto opened = Runtime::open(options_for(plugins, policy));
  ASSERT_TRUE(opened) << opened.error().message;
  Runtime& runtime = **opened;
  ASSERT_EQ(chosen(runtime), "fake_full 1.0.0");
  ASSERT_EQ(chosen(runtime, kAny, "fake_versions"), "fake_versions 1.0.0");
  // In each round one file is new, one has bytes that are bad, and one is as it was.
  std::shared_ptr<const Snapshot> before = runtime.snapshot();
  const std::string whole = fakes::read_file(fakes::fake("fake_minimal"));
  plugins.write("new.so", whole);
  plugins.write("fake_full.so", whole.substr(0, 3000));
  const auto check = [&](int64_t n, attnrt_status status) {
    EXPECT_EQ(chosen(runtime), "fake_full 1.0.0") << n;
    EXPECT_EQ(chosen(runtime, kAny, "fake_versions"), "fake_versions 1.0.0") << n;
    if (status != ATTNRT_OK) {
      EXPECT_EQ(runtime.snapshot(), before) << n;
    } else {
      EXPECT_THAT(runtime.snapshot()->entries, SizeIs(3)) << n;
      before = runtime.snapshot();
    }
  };
  each(
      "reload", [&] { return runtime.reload(); }, check);
  ASSERT_TRUE(runtime.reload());
  EXPECT_EQ(chosen(runtime, kAny, "fake_minimal"), "fake_minimal 1.0.0");
}

TEST_P(ReloadAllocations, Explain) {
  plugins.add("fake_full");
  plugins.add("fake_minimal");
  auto opened = Runtime::open(options_for(plugins, policy));
  ASSERT_TRUE(opened) << opened.error().message;
  ASSERT_EQ(chosen(**opened), "fake_full 1.0.0");
  const auto call = [&]() -> Result<void> {
    const Decision decision = (*opened)->explain(kAny, "", {});
    if (decision.status != ATTNRT_OK)
      return tl::unexpected(Error{decision.status, decision.message});
    EXPECT_EQ(decision.winner()->candidate.plugin->manifest->name, "fake_full");
    return {};
  };
  const auto check = [&](int64_t n, attnrt_status) {
    EXPECT_EQ(chosen(**opened), "fake_full 1.0.0") << n;
  };
  int64_t reported = 0;
  attnrt_status status = ATTNRT_OK;
  EXPECT_GT(for_each_failing_allocation([&](int64_t n) { status = status_of(n, call); },
                                        [&](int64_t n) {
                                          reported += status == ATTNRT_OUT_OF_MEMORY;
                                          check(n, status);
                                        },
                                        GetParam()),
            0);
  EXPECT_GT(reported, 0);
}

TEST_P(ReloadAllocations, List) {
  plugins.add("fake_full");
  plugins.write("broken.so", "text");
  auto opened = Runtime::open(options_for(plugins, policy));
  ASSERT_TRUE(opened) << opened.error().message;
  ASSERT_EQ(chosen(**opened), "fake_full 1.0.0");
  const auto call = [&]() -> Result<void> {
    EXPECT_EQ((*opened)->plugins().at(1).state, "ready");
    return {};
  };
  attnrt_status status = ATTNRT_OK;
  EXPECT_GT(for_each_failing_allocation(
                [&](int64_t n) { status = status_of(n, call); },
                [&](int64_t n) { EXPECT_EQ((*opened)->plugins().at(1).state, "ready") << n; },
                GetParam()),
            0);
}

INSTANTIATE_TEST_SUITE_P(, ReloadAllocations, ::testing::Values(false, true),
                         [](const auto& test) { return test.param ? "Lasting" : "Once"; });

}  // namespace
}  // namespace attnrt::core
