// tests/runtime/decision_log_test.cpp: which decisions are kept as lines of JSON, and how many
#include "decision_log.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "support/tensors.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

std::vector<nlohmann::json> parsed(const std::string& lines) {
  std::vector<nlohmann::json> documents;
  std::istringstream stream(lines);
  for (std::string line; std::getline(stream, line);)
    documents.push_back(nlohmann::json::parse(line));
  return documents;
}

TEST(DecisionLog, KeepsTheLastOnes) {
  DecisionLog log;
  const Services services;
  Decision decision;
  EXPECT_EQ(log.lines(0), "");
  constexpr int64_t kMost = DecisionLog::kMost;
  for (int64_t i = 0; i < kMost + 100; ++i) log.add(decision, services);
  EXPECT_EQ(log.count(), kMost + 100);
  const auto all = parsed(log.lines(0));
  ASSERT_EQ(all.size(), DecisionLog::kMost);
  EXPECT_EQ(all.front()["sequence"], 101);
  EXPECT_EQ(all.back()["sequence"], kMost + 100);
  EXPECT_EQ(all.back()["kind"], "decision");
  EXPECT_EQ(parsed(log.lines(kMost + 98)).size(), 2U);
  EXPECT_EQ(log.lines(kMost + 100), "");
  EXPECT_EQ(log.lines(INT64_MAX), "");
  EXPECT_EQ(parsed(log.lines(-5)).size(), DecisionLog::kMost);
}

TEST(DecisionLog, IsBoundedInBytes) {
  DecisionLog log;
  const Services services;
  Decision decision;
  decision.message = std::string(DecisionLog::kMostBytes / 4, 'x');
  for (int i = 0; i < 6; ++i) log.add(decision, services);
  const auto count = [&log] {
    const std::string lines = log.lines(0);
    return std::count(lines.begin(), lines.end(), '\n');
  };
  EXPECT_EQ(count(), 3);
  decision.message = std::string(2 * DecisionLog::kMostBytes, 'x');
  log.add(decision, services);
  EXPECT_EQ(count(), 1) << "the last one stays";
}

TEST(DecisionLog, ALineIsOneDocumentWhateverItsTexts) {
  DecisionLog log;
  Decision decision;
  decision.message = "two\nlines,   \"quoted\" \xFF";
  log.add(decision, Services());
  const auto documents = parsed(log.lines(0));
  ASSERT_EQ(documents.size(), 1U);
  EXPECT_EQ(documents.front()["message"], "two\nlines,   \"quoted\" \uFFFD");
  EXPECT_THAT(log.lines(0), StartsWith("{\"sequence\": 1, \"time\": \"20"));
}

TEST(DecisionLog, HasNewDecisionsAndThoseAfterAFailure) {
  const TestRuntime runtime({"fake_run_internal", "fake_full"});
  Attention a({});
  for (int i = 0; i < 3; ++i)
    ASSERT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
  (void)runtime->explain(checked(a.problem), "", {});
  const auto documents = parsed(runtime->decisions(0));
  ASSERT_EQ(documents.size(), 3U) << "the first, the one after its failure, the next call's";
  EXPECT_EQ(documents[0]["chosen"], "fake_run_internal");
  EXPECT_EQ(documents[1]["chosen"], "fake_full");
  EXPECT_THAT(std::string(documents[1]["fallback"]), HasSubstr("run was told to fail"));
  EXPECT_EQ(documents[2]["chosen"], "fake_full");
  EXPECT_THAT(std::string(documents[2]["fallback"]), HasSubstr("quarantined"));
  EXPECT_EQ(runtime->stats().decisions, 3);
}

TEST(DecisionLog, IsReadWhileThreadsDecide) {
  const TestRuntime runtime({"fake_minimal"});
  std::atomic<bool> done = false;
  std::thread reader([&] {
    int64_t last = 0;
    while (!done) {
      for (const auto& document : parsed(runtime->decisions(last))) {
        EXPECT_GT(document["sequence"], last);
        last = document["sequence"];
      }
    }
  });
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (int64_t i = 1; i <= 50; ++i) {
        Attention mine({});
        mine.problem.scale = static_cast<float>(100 * thread + i);
        EXPECT_EQ(runtime->attention(mine.problem, mine.args, {}, nullptr), ATTNRT_OK);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  done = true;
  reader.join();
  EXPECT_EQ(runtime->stats().decisions, 200);
}

TEST(DecisionLog, GoesToTheLogIfTheEnvironmentSaysSo) {
  const auto log_of = [](const char* value) {
    const Variable variable("ATTNRT_LOG", value);
    const TestRuntime runtime({"fake_full"});
    Attention a({});
    EXPECT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
    return runtime.log();
  };
  EXPECT_THAT(log_of("warning"), Not(Contains(HasSubstr("decision: "))));
  for (const char* value : {"decision", "off,decision", "decision, error"}) {
    const auto log = log_of(value);
    ASSERT_EQ(log.size(), 1U) << value;
    EXPECT_THAT(log[0], StartsWith("1: decision: {\"sequence\": 1, "));
    EXPECT_EQ(parsed(log[0].substr(log[0].find('{'))).front()["chosen"], "fake_full");
  }
}

}  // namespace
}  // namespace attnrt::core
