// runtime/cli/command.cpp: what the commands share: a runtime, output and one-line errors
#include "cli/command.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "base/text.hpp"
#include "environment.hpp"
#include "trace.hpp"

namespace attnrt::cli {

namespace {

constexpr size_t kBarWidth = 30;            // characters between the brackets of the progress bar
constexpr size_t kUsualTerminalWidth = 80;  // columns, for a terminal that does not say its width

// Whether at least one part of a list "DIR:DIR" is a directory.
bool names_a_directory(const std::string& list) {
  std::error_code error;
  for (const std::string& directory : core::split(list, ':')) {
    if (std::filesystem::is_directory(directory, error)) return true;
  }
  return false;
}

}  // namespace

void add_runtime_options(CLI::App& command, Common& common) {
  command
      .add_option("--policy", common.policy,
                  "A policy file (default: $ATTNRT_POLICY, else the built-in policy)")
      ->type_name("FILE");
  command
      .add_option("--plugins", common.plugins,
                  "Directories of plugins, instead of those of the policy or the environment")
      ->type_name("DIR[:DIR...]");
  add_json_option(command, common);
}

void add_json_option(CLI::App& command, Common& common) {
  command.add_flag("--json", common.json,
                   "Print JSON of schema attnrt/1 (see docs/json.md) instead of text");
}

core::Result<std::unique_ptr<core::Runtime>> open_runtime(const Common& common, int32_t threads) {
  if (common.plugins && !names_a_directory(*common.plugins))
    return core::fail(ATTNRT_INVALID_ARGUMENT, "--plugins {}: no such directory",
                      core::one_line(*common.plugins));
  core::RuntimeOptions options;
  options.policy_path = common.policy;
  options.plugin_path = common.plugins;
  options.thread_count = threads;
  options.never_watch = true;
  return core::Runtime::open(std::move(options));
}

std::string backend_of_environment(std::string_view done) {
  std::string backend = core::read_environment().backend.value_or("");
  if (!backend.empty())
    warn(fmt::format("ATTNRT_BACKEND is {}, so that only this backend is {}", backend, done));
  return backend;
}

InputFile policy_file(const Common& common) {
  if (common.policy) return {"--policy", common.policy};
  return {"ATTNRT_POLICY", core::read_environment().policy};
}

void print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

void print_json(const core::Json& document) { print(document.text() + '\n'); }

// fmt::print throws if it cannot write, and so does not serve here.
void print_on_stderr(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stderr); }

void warn(const std::string& message) {
  print_on_stderr(fmt::format("attnrt: warning: {}\n", one_line(message)));
}

int report_error(const Common& common, ExitCode code, const std::string& message) {
  const std::string line = one_line(message);
  const std::string space = common.command.empty() ? "" : " ";
  print_on_stderr(fmt::format("attnrt{}{}: {}\n", space, common.command, line));
  if (common.json) {
    print_json(core::document(
        "error",
        {{"command", common.command}, {"message", line}, {"exit_code", static_cast<int>(code)}}));
  }
  return code;
}

int report_error(const Common& common, const core::Error& error) {
  return report_error(common, exit_code(error.code), error.message);
}

ExitCode exit_code(attnrt_status status) {
  switch (status) {
    case ATTNRT_OK: return exit_ok;
    case ATTNRT_UNSUPPORTED:
    case ATTNRT_NOT_FOUND: return exit_no;
    case ATTNRT_INVALID_ARGUMENT: return exit_usage;
    default: return exit_failed;
  }
}

std::string time_text(double seconds) {
  if (seconds < 1e-3) return fmt::format("{:.1f} us", seconds * 1e6);
  if (seconds < 1) return fmt::format("{:.2f} ms", seconds * 1e3);
  return fmt::format("{:.2f} s", seconds);
}

ProgressBar::ProgressBar(bool wanted) : enabled_(wanted && isatty(STDERR_FILENO) != 0) {}

ProgressBar::~ProgressBar() {
  if (enabled_) print_on_stderr("\r\x1b[K");
}

void ProgressBar::show(int64_t done, int64_t total, std::string_view what) const {
  if (!enabled_ || total <= 0) return;
  winsize size{};
  const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  const size_t columns = known ? size.ws_col : kUsualTerminalWidth;
  const size_t filled = kBarWidth * static_cast<size_t>(done) / static_cast<size_t>(total);
  std::string line = fmt::format("[{}{}] {}/{}  {}", std::string(filled, '#'),
                                 std::string(kBarWidth - filled, '.'), done, total, what);
  line.resize(std::min(line.size(), columns - 1));  // a wrapped line could not be removed again
  print_on_stderr("\r\x1b[K" + line);
  std::fflush(stderr);
}

}  // namespace attnrt::cli
