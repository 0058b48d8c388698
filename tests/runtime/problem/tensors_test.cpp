// tests/runtime/problem/tensors_test.cpp: the list of tensors, and which ones a problem uses
#include "problem/tensors.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <iterator>
#include <string>
#include <vector>

namespace attnrt::core {
namespace {

using ::testing::ElementsAre;

// Between its head and workspace, attnrt_args has tensors only, and the list has each of them, in
// order.
TEST(Tensors, TheListIsThatOfTheStruct) {
  static_assert(offsetof(attnrt_args, q) + std::size(kTensors) * sizeof(attnrt_tensor) ==
                offsetof(attnrt_args, workspace));
  const attnrt_args args{};
  const attnrt_tensor* expected = &args.q;
  for (const TensorEntry& entry : kTensors)
    EXPECT_EQ(&(args.*entry.member), expected++) << entry.name;
}

std::string used(const Problem& problem) {
  std::string names;
  for (const auto& [name, member, rule] : kTensors) {
    if (rule.is_used(problem)) names += names.empty() ? name : std::string(" ") + name;
  }
  return names;
}

TEST(Tensors, WhichOnesAProblemUses) {
  const std::pair<const char*, const char*> rows[] = {
      {"", "q k v out"},
      {"mask=boolean", "q k v out mask"},
      {"lse=true", "q k v out lse"},
      {"alibi=true sinks=true", "q k v out alibi_slopes sinks"},
      {"kv_lengths=true", "q k v out kv_lengths"},
      {"varlen=true", "q k v out offsets_q offsets_kv"},
      {"page_size=16 kv_lengths=true", "q k v out kv_lengths page_table"},
      {"page_size=16 kv_lengths=true varlen=true", "q k v out kv_lengths offsets_q page_table"},
  };
  for (const auto& [words, expected] : rows) {
    Problem problem = default_problem();
    std::string arch;
    ASSERT_TRUE(parse_problem(words, problem, arch)) << words;
    EXPECT_EQ(used(problem), expected) << words;
  }
}

TEST(Tensors, WhichOnesAreWritten) {
  std::vector<std::string> written;
  for (const TensorEntry& entry : kTensors) {
    if (entry.rule.written) written.emplace_back(entry.name);
  }
  EXPECT_THAT(written, ElementsAre("out", "lse"));
}

}  // namespace
}  // namespace attnrt::core
