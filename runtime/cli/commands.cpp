// runtime/cli/commands.cpp: what every command needs: an open runtime, output, and complaints of one line
#include "commands.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "trace.hpp"

namespace attnrt::cli {

core::Result<std::unique_ptr<core::Runtime>> open_runtime(const Common& common) {
  core::RuntimeOptions options;
  options.policy_path = common.policy;
  options.plugin_path = common.plugins;
  return core::Runtime::open(std::move(options));
}

void print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

void print_json(const nlohmann::json& document) {
  // Names and reasons come from plugins: bytes that are not UTF-8 must not make the document unreadable.
  print(document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + '\n');
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

}  // namespace attnrt::cli
