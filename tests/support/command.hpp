// tests/support/command.hpp: runs the built command, without the environment of this process
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <regex>
#include <string>
#include <string_view>
#include <vector>

#include "cli/io/safetensors.hpp"
#include "fakes/fakes.hpp"
#include "support/golden.hpp"

namespace attnrt::cli {

struct Outcome {
  int exit = -1;  // -N: killed by signal N
  std::string out, err;
};

// Runs `attnrt words...` in the directory, so that messages name files without it.
// to: a file that gets its stdout. name: the command's argv[0]. prepare: is called in the process
// just before it becomes the command.
inline Outcome attnrt_in(const fakes::Directory& directory, std::vector<std::string> words,
                         const std::map<std::string, std::string>& environment = {},
                         const char* to = nullptr, const char* name = ATTNRT_COMMAND,
                         const std::function<void()>& prepare = {}) {
  const fakes::Directory outputs;
  const std::string out = to != nullptr ? to : outputs.text() + "/out",
                    err = outputs.text() + "/err";
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    std::vector<std::string> ours;
    for (char** entry = environ; *entry != nullptr; ++entry)
      if (std::strncmp(*entry, "ATTNRT_", 7) == 0)
        ours.emplace_back(*entry, std::strchr(*entry, '='));
    for (const std::string& variable : ours) unsetenv(variable.c_str());
    setenv("ATTNRT_REGISTRY", ATTNRT_BUILD_DIR "/registry", 1);
    for (const auto& [variable, value] : environment) setenv(variable.c_str(), value.c_str(), 1);
    words.insert(words.begin(), name);
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    const int out_file = open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    const int err_file = open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (dup2(out_file, 1) < 0 || dup2(err_file, 2) < 0 || chdir(directory.text().c_str()) != 0)
      _exit(126);
    if (prepare) prepare();
    execv(ATTNRT_COMMAND, arguments.data());
    _exit(127);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  Outcome outcome;
  outcome.exit = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  if (to == nullptr) outcome.out = fakes::read_file(out);
  outcome.err = fakes::read_file(err);
  return outcome;
}

// Replaces what differs from run to run or from machine to machine: the directory, the width of
// table columns, hashes, times, the libraries of a compiler, and places in the built-in policy.
inline std::string normalised(std::string text, const fakes::Directory& directory) {
  text = fakes::replaced(std::move(text), directory.text(), "DIR");
  text = fakes::replaced(std::move(text), ATTNRT_BUILD_DIR, "BUILD");
  text = std::regex_replace(text, std::regex("\"[0-9a-f]{64}\""), "\"HASH\"");
  text = std::regex_replace(text, std::regex("\"needed\": \\[[^\\]]*\\]"), "\"needed\": \"NAMES\"");
  text = std::regex_replace(text, std::regex("(_us\": )[0-9.e+-]+"), "$1\"TIME\"");
  text = std::regex_replace(text, std::regex("(built-in policy):[0-9]+:[0-9]+"), "$1");
  text = std::regex_replace(text, std::regex("time     .*"), "time     TIME");
  text = std::regex_replace(text, std::regex("[0-9]+ (s|min|h|d) ago"), "TIME ago");
  text = std::regex_replace(text, std::regex("(\"at_seconds\": )[0-9]+"), "$1\"TIME\"");
  return std::regex_replace(text, std::regex("(\\S)   +"), "$1  ");
}

// Every refusal has this exit code, writes one line to stderr, and nothing to stdout.
inline void expect_refusal(const Outcome& outcome, int exit) {
  EXPECT_EQ(outcome.exit, exit) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  EXPECT_TRUE(outcome.err.starts_with("attnrt")) << outcome.err;
}

}  // namespace attnrt::cli
