// runtime/cli/main.cpp: parses the command line, runs one command and returns its exit code
#include <attnrt/plugin.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <csignal>
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
  0  done, and the answer is yes
  1  the answer is no: nothing supports the problem, a rule failed, the policy has errors
  2  bad usage or bad input: one line on stderr says what and where; nothing was run or written
  3  it should have worked: a backend failed or was wrong, the result of `run` is not the one that
     its file expects, memory ran out, or the output could not be written

Environment (options take precedence):
  ATTNRT_POLICY       a policy file
  ATTNRT_PLUGIN_PATH  plugin directories, separated by colons
  ATTNRT_BACKEND      the only backend to use
  ATTNRT_DISABLE      backends not to use; * stands for any text
  ATTNRT_LOG          debug, info, warning, error or off; ",decision" adds each new decision
  ATTNRT_ADMISSION    off, loads or conforms: what a plugin must show before it is loaded
  ATTNRT_REGISTRY     a folder, absolute, where that is kept
  ATTNRT_STATS        a file that gets the counters when a runtime is closed

Examples:
  attnrt list
  attnrt explain dtype=f16 heads_q=9 heads_kv=3 seq_q=128 seq_kv=128 head_dim=64 causal=true \
                 device=rocm arch=gfx1100
  attnrt run --input qkv.safetensors --output out.safetensors --causal)";

constexpr std::array<std::string_view, 11> command_names = {
    "list",  "explain", "run",    "check",      "policy", "verify",
    "bench", "stats",   "doctor", "completion", "man"};

// Returns the options that are known where the user wrote: those of the command and of attnrt.
std::vector<std::string> option_names(const CLI::App& app, const std::vector<CLI::App*>& commands) {
  std::vector<std::string> names;
  const auto add = [&names](const CLI::App& owner) {
    for (const CLI::Option* option : owner.get_options()) {
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
  };
  for (const CLI::App* command : commands) add(*command);
  add(app);
  return names;
}

// Returns "; did you mean --output?" for an option that is nearly a known one, else "".
std::string meant_option(const std::string& word, const CLI::App& app,
                         const std::vector<CLI::App*>& commands) {
  const std::vector<std::string> names = option_names(app, commands);
  const std::vector<std::string_view> views(names.begin(), names.end());
  return core::did_you_mean(std::string_view(word).substr(0, word.find('=')), views);
}

// Reports a command line that CLI11 could not parse, in one line. CLI11's own text would be
// several.
int report_bad_usage(CLI::App& app, cli::Common& common, const CLI::ParseError& error) {
  const std::vector<CLI::App*> chosen = app.get_subcommands();
  const std::vector<std::string> unparsed = app.remaining(true);
  std::string message = error.what();
  constexpr std::string_view kValueOfFlag =
      " was given a disallowed flag override";  // CLI11's text
  const bool flag_has_value = message.ends_with(kValueOfFlag);
  if (flag_has_value) {
    message.resize(message.size() - kValueOfFlag.size());
    message = fmt::format("--{} takes no value", message);
  }
  std::string hint = "attnrt --help";
  if (!chosen.empty()) {
    common.command = chosen.front()->get_name();
    hint = "attnrt " + common.command + " --help";
    if (!unparsed.empty()) {
      const bool option = unparsed.front().starts_with('-');
      message = fmt::format("unexpected {} {}{}", option ? "option" : "argument", unparsed.front(),
                            option ? meant_option(unparsed.front(), app, chosen) : "");
    }
  } else if (!unparsed.empty() && unparsed.front().starts_with('-')) {
    message = "there is no option " + unparsed.front() + meant_option(unparsed.front(), app, {});
  } else if (!unparsed.empty()) {
    message = fmt::format("there is no command {}{}", unparsed.front(),
                          core::did_you_mean(unparsed.front(), command_names));
  } else if (!flag_has_value) {
    message = "no command was given";
  }
  return cli::report_error(common, cli::exit_usage, fmt::format("{} (see {})", message, hint));
}

// Opens /dev/null in place of each standard descriptor that the process was started without.
// Otherwise a file that is opened later would get the descriptor's number, and then the output. It
// is opened for reading, so that writing to it fails as writing to a closed descriptor does.
void fill_standard_descriptors() {
  for (const int number : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(number, F_GETFD) < 0) (void)open("/dev/null", O_RDONLY);  // the lowest free number
  }
}

int run_command_line(int argc, char** argv, cli::Common& common) {
  CLI::App app{
      "attnrt: scaled dot-product attention by plugins. Lists the backends, explains which one the "
      "policy chooses for a problem, runs it, and checks and measures backends."};
  app.name("attnrt");
  app.set_version_flag("--version", fmt::format("attnrt {} (plugin ABI {}.{})", ATTNRT_VERSION,
                                                ATTNRT_ABI_MAJOR, ATTNRT_ABI_MINOR));
  app.require_subcommand(1);
  app.option_defaults()->disable_flag_override();  // a flag takes no value: --json=no is an error
  app.fallthrough();  // the options below may also come after the command's name
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
  cli::add_stats(app, common);
  cli::add_doctor(app, common);
  cli::add_help(app, common);
  std::vector<const char*> words(argv, argv + argc);
  if (argc > 1 && std::string_view(argv[1]) == "help") {  // "help list" means "list --help"
    words.erase(words.begin() + 1);
    words.push_back("--help");
  }
  try {
    app.parse(static_cast<int>(words.size()), words.data());
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) return report_bad_usage(app, common, error);
    return app.exit(error);  // --help and --version
  }
  return common.exit;
}

}  // namespace

int main(int argc, char** argv) {
  fill_standard_descriptors();
  // Writing to a closed pipe, or past a limit on file sizes, is an error that is reported, and does
  // not kill the process.
  (void)std::signal(SIGPIPE, SIG_IGN);
  (void)std::signal(SIGXFSZ, SIG_IGN);
  cli::Common common;
  int exit = cli::exit_failed;
  try {
    exit = run_command_line(argc, argv, common);
  } catch (const std::bad_alloc&) {
    exit = cli::report_error(common, cli::exit_failed, "out of memory");
  } catch (const std::exception& error) {
    exit = cli::report_error(common, cli::exit_failed, error.what());
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    common.json = false;
    return cli::report_error(common, cli::exit_failed, "cannot write the output to stdout");
  }
  return exit;
}
