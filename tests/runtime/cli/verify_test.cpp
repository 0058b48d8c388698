// tests/runtime/cli/verify_test.cpp: which plugins attnrt verify checks, and what it says of them
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/command.hpp"

namespace attnrt::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using Words = std::vector<std::string>;

class Verify : public ::testing::Test {
 protected:
  Outcome verify(Words words, const std::map<std::string, std::string>& environment = {}) const {
    words.insert(words.begin(), "verify");
    words.insert(words.end(), {"--cases", "8", "--json", "--plugins", directory.text()});
    return attnrt_in(directory, std::move(words), environment);
  }
  static nlohmann::json document(const Outcome& outcome) {
    auto json = nlohmann::json::parse(outcome.out, nullptr, false);
    EXPECT_FALSE(json.is_discarded()) << outcome.out << outcome.err;
    return json;
  }

  const fakes::Directory directory;
};

// name.so is a link to name.so.1.2 where plugins are installed like libraries.
TEST_F(Verify, ALinkToAFileOfAnotherName) {
  const fakes::Directory elsewhere;
  directory.add("fake_full");
  fs::rename(directory.path() / "fake_full.so", directory.path() / "fake_full.so.1.0");
  fs::create_symlink("fake_full.so.1.0", directory.path() / "fake_full.so");
  EXPECT_THAT(attnrt_in(directory, {"list", "--plugins", directory.text()}).out,
              HasSubstr("fake_full"));
  fs::create_symlink(directory.path() / "fake_full.so.1.0", elsewhere.path() / "other.so");
  for (const std::string& file : {std::string("fake_full.so"), std::string("./fake_full.so"),
                                  elsewhere.text() + "/other.so"}) {
    const Outcome outcome = verify({"--plugin", file, "--rule", "AGR-2"});
    EXPECT_EQ(outcome.exit, 0) << file << ": " << outcome.out << outcome.err;
  }
}

TEST_F(Verify, TheEnvironmentMayNameTheOnlyBackend) {
  for (const char* plugin : {"fake_full", "fake_minimal"}) directory.add(plugin);
  const auto paths = [&](const Words& words) {
    const Outcome outcome = verify(words, {{"ATTNRT_BACKEND", "fake_minimal"}});
    std::string text;
    const auto found = document(outcome);
    for (const auto& plugin : found["plugins"])
      text += fs::path(plugin["path"].get<std::string>()).filename().string() + " ";
    return text + outcome.err;
  };
  EXPECT_EQ(paths({"--rule", "ABI-1"}),
            "fake_minimal.so attnrt: warning: ATTNRT_BACKEND is fake_minimal, so that only this "
            "backend is checked\n");
  EXPECT_EQ(paths({"--rule", "ABI-1", "--backend", "fake_full"}), "fake_full.so ");
}

// What a failing case is about stands in words that `attnrt explain` takes, and the printed command
// repeats it alone.
TEST_F(Verify, AFailingCaseIsNamedAndRepeated) {
  directory.add("fake_bad_diagonal");
  const auto failure = [&](const Words& words) {
    Words all = {"verify", "--json", "--plugin", "fake_bad_diagonal.so", "--rule", "ACC-1"};
    all.insert(all.end(), words.begin(), words.end());
    const auto found = document(attnrt_in(directory, all));
    for (const auto& rule : found["plugins"][0]["rules"])
      if (rule["id"] == "ACC-1") return rule;
    return nlohmann::json();
  };
  const auto first = failure({"--cases", "96"});
  ASSERT_EQ(first["state"], "failed") << first.dump(2);
  const std::string detail = first["detail"], again = first["reproduce"];
  EXPECT_THAT(detail, HasSubstr(" diagonal_offset=true"));
  const auto seed = again.find(" --cases 1 --seed ");
  ASSERT_NE(seed, std::string::npos) << again;
  const auto second = failure({"--cases", "1", "--seed", again.substr(seed + 18)});
  EXPECT_EQ(second["detail"], detail.substr(0, detail.rfind(';')));  // "; 14 of 96 cases"
}

TEST_F(Verify, APluginThatEndsTheProcessIsTold) {
  directory.add("fake_bad_exit");
  const Outcome outcome = verify({"--plugin", "fake_bad_exit.so", "--rule", "AGR-2"});
  EXPECT_EQ(outcome.exit, 1);
  const auto found = document(outcome);
  std::string detail;
  for (const auto& rule : found["plugins"][0]["rules"])
    if (rule["id"] == "AGR-2") detail = rule["detail"];
  EXPECT_EQ(detail, "the process was ended by exit(0)");
}

}  // namespace
}  // namespace attnrt::cli
