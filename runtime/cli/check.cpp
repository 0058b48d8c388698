// runtime/cli/check.cpp: attnrt check: shows the errors and warnings of policy files, one a line
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "cli/command.hpp"
#include "config.hpp"
#include "formats/yaml.hpp"
#include "trace.hpp"

namespace attnrt::cli {
namespace {

struct Finding {
  std::string file;
  int64_t line = 0, column = 0;  // 0: the finding is about the whole file
  std::string severity;          // "error" or "warning"
  std::string message;
};

// Splits "policy.yaml:3:5: message". A text that begins otherwise is about the whole file.
Finding parse_finding(const std::string& file, const std::string& severity,
                      const std::string& text) {
  Finding finding{.file = file, .severity = severity, .message = text};
  if (!text.starts_with(file + ":")) return finding;
  int length = 0;
  long line = 0, column = 0;
  if (std::sscanf(text.c_str() + file.size(), ":%ld:%ld: %n", &line, &column, &length) == 2 &&
      length > 0) {
    finding.line = line;
    finding.column = column;
    finding.message = text.substr(file.size() + static_cast<size_t>(length));
  } else {
    finding.message = text.substr(file.size() + 1);
    finding.message.erase(0, finding.message.find_first_not_of(' '));
  }
  return finding;
}

std::string to_text(const Finding& finding) {
  const std::string place =
      finding.line > 0 ? fmt::format(":{}:{}", finding.line, finding.column) : "";
  return one_line(
             fmt::format("{}{}: {}: {}", finding.file, place, finding.severity, finding.message)) +
         "\n";
}

core::Json to_json(const Finding& finding) {
  const bool has_place = finding.line > 0;
  return {{"file", finding.file},
          {"severity", finding.severity},
          {"message", finding.message},
          {"line", has_place ? core::Json(finding.line) : nullptr},
          {"column", has_place ? core::Json(finding.column) : nullptr}};
}

// Checks one policy. The environment is not read, because it is not part of the file.
std::vector<Finding> check_policy(const std::string& file, const std::string& text) {
  core::Errors errors;
  const auto config = core::read_config(text, file, core::Environment{}, &errors);
  std::vector<Finding> findings;
  for (const core::Error& error : errors)
    findings.push_back(parse_finding(file, "error", error.message));
  if (config) {
    for (const std::string& warning : config->warnings)
      findings.push_back(parse_finding(file, "warning", warning));
  }
  std::stable_sort(findings.begin(), findings.end(), [](const Finding& a, const Finding& b) {
    return std::pair(a.line, a.column) < std::pair(b.line, b.column);
  });
  return findings;
}

int check(const Common& common, const std::vector<std::string>& files) {
  if (common.policy || common.plugins) {
    return report_error(common, exit_usage,
                        "--policy and --plugins have no effect here; give the policy files as "
                        "arguments");
  }
  std::vector<Finding> findings;
  std::string text;
  int exit = exit_ok;
  for (const std::string& file : files) {
    const auto content = core::yaml::read_text(file);
    if (!content)
      return report_error(
          common, exit_usage,
          one_line(file) + ": " + content.error().message + "; expected a policy file");
    const std::vector<Finding> found = check_policy(file, *content);
    for (const Finding& one : found) {
      text += to_text(one);
      if (one.severity == "error") exit = exit_no;
    }
    if (found.empty()) text += one_line(file) + ": ok\n";
    findings.insert(findings.end(), found.begin(), found.end());
  }
  if (common.json) {
    std::vector<core::Json> list;
    for (const Finding& one : findings) list.push_back(to_json(one));
    print_json(
        core::document("check", {{"files", files}, {"ok", exit == exit_ok}, {"findings", list}}));
  } else {
    print(text);
  }
  return exit;
}

}  // namespace

void add_check(CLI::App& app, Common& common) {
  CLI::App* command =
      app.add_subcommand("check", "Show the errors and warnings of policy files, one a line");
  const auto files = std::make_shared<std::vector<std::string>>();
  command->add_option("policy", *files, "The policy files")->required()->type_name("FILE");
  command->footer("Exit code 1: a file has errors. Warnings do not change the exit code.");
  add_json_option(*command, common);
  command->callback([&common, files] {
    common.command = "check";
    common.exit = check(common, *files);
  });
}

}  // namespace attnrt::cli
