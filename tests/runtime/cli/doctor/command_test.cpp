// tests/runtime/cli/doctor/command_test.cpp: attnrt doctor, on good and bad folders of plugins
#include "support/command.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace attnrt::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class Doctor : public ::testing::Test {
 protected:
  Outcome doctor(std::vector<std::string> words,
                 const std::map<std::string, std::string>& environment = {}) const {
    words.insert(words.begin(), "doctor");
    words.insert(words.end(), {"--plugins", plugins.text()});
    return attnrt_in(directory, std::move(words), environment);
  }
  nlohmann::json document(std::vector<std::string> words) const {
    words.emplace_back("--json");
    return nlohmann::json::parse(doctor(std::move(words)).out);
  }
  const fakes::Directory directory;
  fakes::Directory plugins;
};

TEST_F(Doctor, AMachineOnWhichTheCpuServes) {
  plugins.copy(ATTNRT_CPU_PLUGIN, "cpu.so");
  const Outcome shown = doctor({});
  EXPECT_EQ(shown.exit, 0) << shown.out << shown.err;
  EXPECT_THAT(
      shown.out,
      AllOf(HasSubstr("attnrt     " ATTNRT_VERSION ", plugin ABI 1."), HasSubstr("\nsystem     "),
            HasSubstr("\nprocessor  "), HasSubstr("\nNVIDIA     "), HasSubstr("\nAMD        "),
            HasSubstr("\npolicy     built-in\n"), HasSubstr("  cpu 1."), HasSubstr(" right ")));
  const auto found = document({});
  EXPECT_EQ(found["kind"], "doctor");
  EXPECT_EQ(found["ok"], true);
  EXPECT_EQ(found["self_tests"][0]["state"], "right");
  EXPECT_EQ(found["plugins"]["plugins"][0]["name"], "cpu");
}

TEST_F(Doctor, ABackendWithWrongResultsIsAnError) {
  plugins.copy(ATTNRT_CPU_PLUGIN, "cpu.so");
  plugins.add("fake_bad_rough");
  const Outcome shown = doctor({});
  EXPECT_EQ(shown.exit, 1);
  EXPECT_THAT(shown.out,
              AllOf(HasSubstr("1. error: fake_bad_rough 1.0.0 on cpu gives a wrong result: out at "
                              "query 0, head 0, 0 is "),
                    HasSubstr("   mend: `attnrt verify --backend fake_bad_rough`")));
  EXPECT_EQ(document({})["ok"], false);
}

TEST_F(Doctor, ABackendOfADeviceIsTriedThroughCopies) {
  plugins.add("fake_rocm");
  const auto found = document({});
  ASSERT_EQ(found["self_tests"].size(), 1U);
  EXPECT_EQ(found["self_tests"][0]["state"], "right");
  EXPECT_EQ(found["self_tests"][0]["device"], "rocm");
}

TEST_F(Doctor, NoPluginAndAWrongPolicy) {
  const Outcome empty = doctor({});
  EXPECT_EQ(empty.exit, 1);
  EXPECT_THAT(empty.out, HasSubstr("1. error: there is no plugin in "));
  plugins.copy(ATTNRT_CPU_PLUGIN, "cpu.so");
  directory.write("policy.yaml", "schema: 1\nthread: 3\n");
  const Outcome wrong = doctor({"--policy", "policy.yaml"});
  EXPECT_EQ(wrong.exit, 1);
  EXPECT_THAT(wrong.out,
              AllOf(HasSubstr("1. error: no runtime can be opened: policy.yaml:2:1: thread: "
                              "unknown key; did you mean threads?\n"),
                    HasSubstr("   mend: `attnrt check policy.yaml` names every error"),
                    HasSubstr("\nprocessor  "), Not(HasSubstr("self-test"))));
}

TEST_F(Doctor, VariablesThatMatterAreShown) {
  plugins.copy(ATTNRT_CPU_PLUGIN, "cpu.so");
  const Outcome shown = doctor({}, {{"ATTNRT_BACKEND", "cpu"}, {"ATTNRT_POLICI", "x\ny"}});
  EXPECT_EQ(shown.exit, 0);
  EXPECT_THAT(shown.out, AllOf(HasSubstr("\nvariable   ATTNRT_BACKEND=cpu\n"),
                               HasSubstr("\nvariable   ATTNRT_POLICI=x\\ny\n"),
                               HasSubstr("note: ATTNRT_BACKEND=cpu: no other backend serves"),
                               HasSubstr("did you mean ATTNRT_POLICY?")));
}

}  // namespace
}  // namespace attnrt::cli
