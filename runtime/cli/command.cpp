// runtime/cli/command.cpp: what every command needs: an open runtime, output, and complaints of one line
#include "cli/command.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "trace.hpp"

namespace attnrt::cli {

namespace {

bool names_a_directory(const std::string& path) {
  std::istringstream directories(path);
  std::error_code error;
  for (std::string directory; std::getline(directories, directory, ':');) {
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
                  "Where plugins are, instead of the policy's and the environment's directories")
      ->type_name("DIR[:DIR...]");
  add_json_option(command, common);
}

void add_json_option(CLI::App& command, Common& common) {
  command.add_flag("--json", common.json, "JSON of schema attnrt/1 (docs/json.md) instead of text");
}

core::Result<std::unique_ptr<core::Runtime>> open_runtime(const Common& common, int32_t threads) {
  if (common.plugins && !names_a_directory(*common.plugins))
    return core::fail(ATTNRT_INVALID_ARGUMENT, "--plugins {}: there is no directory of that name",
                      core::one_line(*common.plugins));
  core::RuntimeOptions options;
  options.policy_path = common.policy;
  options.plugin_path = common.plugins;
  options.thread_count = threads;
  return core::Runtime::open(std::move(options));
}

void print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

void print_json(const nlohmann::json& document) {
  // Names and reasons come from plugins: bytes that are not UTF-8 must not make the document unreadable.
  print(document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + '\n');
}

void warn(const std::string& message) {
  fmt::print(stderr, "attnrt: warning: {}\n", one_line(message));
}

int complain(const Common& common, ExitCode code, const std::string& message) {
  const std::string line = one_line(message);
  const std::string space = common.command.empty() ? "" : " ";
  fmt::print(stderr, "attnrt{}{}: {}\n", space, common.command, line);
  if (common.json) {
    nlohmann::json document = core::document("error");
    document["command"] = common.command;
    document["message"] = line;
    document["exit_code"] = static_cast<int>(code);
    print_json(document);
  }
  return code;
}

int complain(const Common& common, const core::Error& error) {
  return complain(common, exit_code(error.code), error.message);
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

ProgressBar::ProgressBar(bool wanted) : on_(wanted && isatty(STDERR_FILENO) != 0) {}

ProgressBar::~ProgressBar() {
  if (on_) fmt::print(stderr, "\r\x1b[K");
}

void ProgressBar::show(int64_t done, int64_t all, std::string_view what) const {
  if (!on_ || all <= 0) return;
  constexpr int64_t kWidth = 30;
  winsize size{};
  const size_t columns =
      ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
  const auto filled = static_cast<size_t>(kWidth * done / all);
  const std::string line =
      fmt::format("[{}{}] {}/{}  {}", std::string(filled, '#'),
                  std::string(static_cast<size_t>(kWidth) - filled, '.'), done, all, what);
  fmt::print(stderr, "\r\x1b[K{}",
             line.substr(0, columns - 1));  // a longer one would leave its first row behind
  std::fflush(stderr);
}

}  // namespace attnrt::cli
