// runtime/cli/main.cpp: a command line into one command's output and an exit code that scripts can use
#include <attnrt/plugin.h>
#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "base/nearest.hpp"
#include "cli/command.hpp"

namespace {

using namespace attnrt;

constexpr const char* footer = R"(Exit codes:
  0  done; the answer is yes
  1  the answer is no: nothing supports the problem, a rule failed, the policy has errors
  2  bad usage or bad input: one line on stderr says what and where; nothing was run or written
  3  it should have worked: a backend failed or was wrong, memory ran out, the output could not be written

Environment: ATTNRT_POLICY (a policy file), ATTNRT_PLUGIN_PATH (directories), ATTNRT_BACKEND (a name),
ATTNRT_DISABLE (names, * allowed), ATTNRT_LOG (debug, info, warning, error, off). Options win over it.

  attnrt list
  attnrt explain dtype=f16 heads_q=9 heads_kv=3 seq_q=128 seq_kv=128 head_dim=64 causal=true device=rocm arch=gfx1100
  attnrt run --input qkv.safetensors --output out.safetensors --causal)";

constexpr std::array<std::string_view, 7> command_names = {"list",   "explain", "run",  "check",
                                                           "policy", "verify",  "bench"};

// The command line that CLI11 refused, as one line; its own text would be several.
int refuse(CLI::App& app, cli::Common& common, const CLI::ParseError& error) {
  const std::vector<CLI::App*> chosen = app.get_subcommands();
  if (!chosen.empty()) common.command = chosen.front()->get_name();
  std::string message = error.what();
  const std::vector<std::string> surplus = app.remaining(true);
  if (chosen.empty()) {
    message = "no command was given";
    for (const std::string& word : surplus) {
      if (word.starts_with('-')) continue;
      message =
          fmt::format("there is no command {}{}", word, core::did_you_mean(word, command_names));
      break;
    }
    if (!surplus.empty() && surplus.front().starts_with('-'))
      message = "there is no option " + surplus.front();
  } else if (!surplus.empty()) {
    message = "this was not expected: " + surplus.front();
  }
  const std::string hint =
      chosen.empty() ? "attnrt --help" : "attnrt " + common.command + " --help";
  return cli::complain(common, cli::exit_usage, message + " (see " + hint + ")");
}

int run_command_line(int argc, char** argv, cli::Common& common) {
  CLI::App app{
      "attnrt: attention by plugins. Finds the backends, and says and runs what the policy "
      "decides."};
  app.name("attnrt");
  app.set_version_flag("--version", fmt::format("attnrt {} (plugin ABI {}.{})", ATTNRT_VERSION,
                                                ATTNRT_ABI_MAJOR, ATTNRT_ABI_MINOR));
  app.require_subcommand(1);
  app.fallthrough();  // inherited by the commands: their users may put the options below anywhere
  app.footer(footer);
  app.get_formatter()->column_width(34);
  cli::add_runtime_options(app, common);

  cli::add_list(app, common);
  cli::add_explain(app, common);
  cli::add_run(app, common);
  cli::add_check(app, common);
  cli::add_policy(app, common);
  cli::add_verify(app, common);
  cli::add_bench(app, common);
  std::vector<const char*> words(argv, argv + argc);
  if (argc > 1 && std::string_view(argv[1]) == "help") {  // "help list" is "list --help"
    words.erase(words.begin() + 1);
    words.push_back("--help");
  }
  try {
    app.parse(static_cast<int>(words.size()), words.data());
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) return refuse(app, common, error);
    return app.exit(error);  // --help and --version
  }
  return common.exit;
}

}  // namespace

int main(int argc, char** argv) {
  cli::Common common;
  int exit = cli::exit_failed;
  try {
    exit = run_command_line(argc, argv, common);
  } catch (const std::bad_alloc&) {
    exit = cli::complain(common, cli::exit_failed, "memory ran out");
  } catch (const std::exception& error) {
    exit = cli::complain(common, cli::exit_failed, error.what());
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    common.json = false;
    return cli::complain(common, cli::exit_failed, "the output could not be written to stdout");
  }
  return exit;
}
