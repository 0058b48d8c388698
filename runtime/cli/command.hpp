// runtime/cli/command.hpp: what the commands of `attnrt` share, and the function that adds each to the command line
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "runtime.hpp"

namespace attnrt::cli {

// What scripts may rely on; printed by --help.
enum ExitCode : int {
  exit_ok = 0,
  exit_no =
      1,  // the answer is no: nothing supports the problem, a rule failed, the policy has errors
  exit_usage = 2,  // bad usage or bad input: nothing was run or written
  exit_failed =
      3,  // a backend failed or was wrong, memory ran out, the output could not be written
};

// Options of several commands, before or after a command's name; and what a command leaves behind.
struct Common {
  std::optional<std::string> policy;   // --policy FILE
  std::optional<std::string> plugins;  // --plugins DIR[:DIR...]
  bool json = false;                   // --json
  std::string command;                 // "run": begins every message
  int exit = exit_ok;                  // what main returns
};

// Each adds one subcommand. Its callback runs after everything is parsed: it sets common.command first and common.exit
// last, and throws nothing.
//
//   void add_list(CLI::App& app, Common& common) {
//     CLI::App* command = app.add_subcommand("list", "...");
//     command->callback([&common] { common.command = "list"; common.exit = list(common); });
//   }
void add_list(CLI::App& app, Common& common);
void add_explain(CLI::App& app, Common& common);
void add_run(CLI::App& app, Common& common);
void add_check(CLI::App& app, Common& common);
void add_policy(CLI::App& app, Common& common);
void add_verify(CLI::App& app, Common& common);
void add_bench(CLI::App& app, Common& common);

// The options of common that the command takes, for its --help: those of what opens a runtime, and --json.
void add_runtime_options(CLI::App& command, Common& common);
void add_json_option(CLI::App& command, Common& common);

// The runtime that --policy, --plugins and the environment ask for. Its warnings go to stderr, one line each.
// threads 0: the policy's.
core::Result<std::unique_ptr<core::Runtime>> open_runtime(const Common& common,
                                                          int32_t threads = 0);

// Text, or a document as indented JSON, to stdout (main checks that it got there).
void print(const std::string& text);
void print_json(const nlohmann::json& document);

// "attnrt run: message" on stderr as exactly one line; with --json also a document of kind "error" on stdout. Returns code.
void warn(
    const std::string& message);  // "attnrt: warning: message" on stderr, as the runtime's own
int complain(const Common& common, ExitCode code, const std::string& message);
int complain(const Common& common,
             const core::Error& error);  // the exit code that its status means
ExitCode exit_code(attnrt_status status);

using core::one_line;

// A line on stderr that shows how far a long command is, where stderr is a terminal; gone with the object.
class ProgressBar {
 public:
  explicit ProgressBar(bool wanted);
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  ~ProgressBar();
  void show(int64_t done, int64_t all, std::string_view what) const;

 private:
  bool on_;
};

}  // namespace attnrt::cli
