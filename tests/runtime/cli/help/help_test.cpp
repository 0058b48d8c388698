// tests/runtime/cli/help/help_test.cpp: attnrt man and attnrt completion, made from the options
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>

#include "support/command.hpp"

namespace attnrt::cli {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Not;

class Help : public ::testing::Test {
 protected:
  std::string output(std::vector<std::string> words) const {
    const Outcome outcome = attnrt_in(directory, std::move(words));
    EXPECT_EQ(outcome.exit, 0) << outcome.err;
    return outcome.out;
  }

  // What bash completes the last of these words by.
  std::vector<std::string> completed(const std::string& words) const {
    directory.write("completion", output({"completion", "bash"}));
    directory.write("ask.sh", "source ./completion\nCOMP_WORDS=(" + words +
                                  ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_attnrt\n"
                                  "printf '%s\\n' \"${COMPREPLY[@]}\" > answer\n");
    EXPECT_EQ(std::system(("cd '" + directory.text() + "' && bash ask.sh").c_str()), 0);
    std::vector<std::string> lines;
    std::istringstream answer(fakes::read_file(directory.path() / "answer"));
    for (std::string line; std::getline(answer, line);) lines.push_back(line);
    return lines;
  }

  const fakes::Directory directory;
};

std::set<std::string> options_in(const std::string& text) {
  std::set<std::string> found;
  const std::regex option("--[a-z][a-z-]*");
  for (std::sregex_iterator at(text.begin(), text.end(), option), end; at != end; ++at)
    found.insert(at->str());
  return found;
}

const std::vector<std::string> kCommands = {"list",   "explain",    "run",   "check",
                                            "policy", "verify",     "bench", "stats",
                                            "doctor", "completion", "man"};

TEST_F(Help, TheManualPageHasEveryOptionOfEveryCommand) {
  const std::string page = std::regex_replace(output({"man"}), std::regex("\\\\-"), "-");
  EXPECT_THAT(page, AllOf(HasSubstr(".TH ATTNRT 1 "), HasSubstr(".SH NAME\nattnrt "),
                          HasSubstr("Exit codes:"), HasSubstr("ATTNRT_POLICY")));
  for (const std::string& command : kCommands) {
    const size_t begin = page.find(".SS \"attnrt " + command);
    ASSERT_NE(begin, std::string::npos) << command;
    const std::string section = page.substr(begin, page.find("\n.S", begin + 1) - begin);
    std::string shown = output({command, "--help"});
    shown.resize(std::min(shown.find("Exit codes:"), shown.size()));
    for (const std::string& option : options_in(shown))
      EXPECT_THAT(section, HasSubstr(option)) << command;
  }
  EXPECT_THAT(page, Not(HasSubstr("verify-child"))) << "it is hidden";
}

TEST_F(Help, NoLineOfTheManualPageIsTakenForARequest) {
  std::istringstream page(output({"man"}));
  const std::set<std::string> known = {".TH", ".SH", ".SS", ".TP", ".B", ".PP", ".nf", ".fi"};
  for (std::string line; std::getline(page, line);) {
    EXPECT_FALSE(line.starts_with('\'')) << line;
    if (!line.starts_with('.')) continue;
    EXPECT_TRUE(known.count(line.substr(0, line.find(' ')))) << line;
  }
}

TEST_F(Help, BashCompletesCommandsOptionsWordsAndFiles) {
  EXPECT_THAT(completed("attnrt ''"), IsSupersetOf(kCommands));
  EXPECT_THAT(completed("attnrt --pol"), ::testing::ElementsAre("--policy"));
  EXPECT_THAT(completed("attnrt list --"),
              AllOf(Contains("--retry"), Contains("--policy"), Not(Contains("--samples"))));
  EXPECT_THAT(completed("attnrt explain head_dim"),
              ::testing::UnorderedElementsAre("head_dim=", "head_dim_v="));
  directory.write("policy one.yaml", "");
  EXPECT_THAT(completed("attnrt list --policy pol"), ::testing::ElementsAre("policy one.yaml"));
  EXPECT_THAT(completed("attnrt check pol"), ::testing::ElementsAre("policy one.yaml"));
  std::filesystem::create_directory(directory.path() / "plugins");
  EXPECT_THAT(completed("attnrt list --plugins p"), ::testing::ElementsAre("plugins"));
}

TEST_F(Help, EveryShellHasEveryCommandAndOption) {
  for (const char* shell : {"zsh", "fish"}) {
    const std::string text = output({"completion", shell});
    for (const std::string& command : kCommands) EXPECT_THAT(text, HasSubstr(command)) << shell;
    for (const char* option : {"retry", "seed", "html", "window-left"})
      EXPECT_THAT(text, HasSubstr(option)) << shell;
  }
  const Outcome wrong = attnrt_in(directory, {"completion", "tcsh"});
  EXPECT_EQ(wrong.exit, 2);
  EXPECT_THAT(wrong.err, HasSubstr("tcsh"));
}

}  // namespace
}  // namespace attnrt::cli
