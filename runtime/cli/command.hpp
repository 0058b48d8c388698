// runtime/cli/command.hpp: what the commands of `attnrt` share
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "cli/io/output_file.hpp"
#include "formats/json.hpp"
#include "runtime.hpp"

namespace attnrt::cli {

// The exit codes. Scripts may rely on them, and --help prints them.
enum ExitCode : int {
  exit_ok = 0,  // done, and the answer is yes
  exit_no = 1,  // the answer is no: the problem is unsupported, a rule failed, a policy has errors
  exit_usage = 2,  // bad usage or bad input: nothing was run or written
  // A backend failed or was wrong, the result is not the expected one, memory ran out, or the
  // output could not be written.
  exit_failed = 3,
};

// The options that several commands take, and the state that a command leaves behind for main.
struct Common {
  std::optional<std::string> policy;   // --policy FILE
  std::optional<std::string> plugins;  // --plugins DIR[:DIR...]
  bool json = false;                   // --json
  std::string command;                 // the command's name; every message on stderr begins with it
  int exit = exit_ok;                  // the exit code that main returns
};

// Each of these adds one subcommand. CLI11 calls the subcommand's callback once everything is
// parsed. The callback sets common.command first and common.exit last, and does not throw.
//
//   void add_list(CLI::App& app, Common& common) {
//     CLI::App* command = app.add_subcommand("list", "...");
//     command->callback([&common] {
//       common.command = "list";
//       common.exit = list(common);
//     });
//   }
void add_list(CLI::App& app, Common& common);
void add_explain(CLI::App& app, Common& common);
void add_run(CLI::App& app, Common& common);
void add_check(CLI::App& app, Common& common);
void add_policy(CLI::App& app, Common& common);
void add_verify(CLI::App& app, Common& common);
void add_bench(CLI::App& app, Common& common);
void add_stats(CLI::App& app, Common& common);
void add_doctor(CLI::App& app, Common& common);
void add_help(CLI::App& app, Common& common);

// Adds --policy, --plugins and --json, for a command that opens a runtime.
void add_runtime_options(CLI::App& command, Common& common);
void add_json_option(CLI::App& command, Common& common);

// Opens the runtime that --policy, --plugins and the environment ask for. The runtime prints its
// warnings on stderr, one a line. `threads`: the number of threads; 0 leaves it to the policy.
core::Result<std::unique_ptr<core::Runtime>> open_runtime(const Common& common,
                                                          int32_t threads = 0);

// Returns the one backend that ATTNRT_BACKEND asks for, or "". Warns that only this one is `done`
// ("checked"), because the user may have forgotten the variable. For a command that otherwise takes
// all backends, if it was given none.
std::string backend_of_environment(std::string_view done);

// Returns the policy file that --policy or the environment names, if any: outputs must not replace
// it.
InputFile policy_file(const Common& common);

// Print text or a document on stdout. main checks that it could be written.
void print(const std::string& text);
void print_json(const core::Json& document);

// Prints text on stderr. If stderr cannot be written, nothing happens: there is no other place to
// say so, and the exit code stays what it is.
void print_on_stderr(std::string_view text);

// Prints "attnrt: warning: message" on stderr, as the runtime does.
void warn(const std::string& message);

// Prints "attnrt run: message" on stderr, as exactly one line. With --json it also prints a
// document of kind "error" on stdout. RETURNS the exit code: `code`, or the one of the error's
// status.
int report_error(const Common& common, ExitCode code, const std::string& message);
int report_error(const Common& common, const core::Error& error);
ExitCode exit_code(attnrt_status status);

using core::one_line;

// Returns a duration as people read it: "3.2 us", "41.05 ms", "2.50 s".
std::string time_text(double seconds);

// A line on stderr that shows the progress of a long command. It is shown only if stderr is a
// terminal, and the destructor removes it.
class ProgressBar {
 public:
  explicit ProgressBar(bool wanted);
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  ~ProgressBar();
  void show(int64_t done, int64_t total, std::string_view what) const;

 private:
  bool enabled_;
};

}  // namespace attnrt::cli
