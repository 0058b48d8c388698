// runtime/cli/check.cpp: attnrt check: policy files into their errors and warnings, each as one line file:line:column
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/command.hpp"
#include "config.hpp"
#include "formats/yaml.hpp"
#include "trace.hpp"

namespace attnrt::cli {
namespace {

struct Finding {
  std::string file;
  int64_t line = 0, column = 0;  // 0: of the whole file
  std::string severity;          // error, warning
  std::string message;
};

// "policy.yaml:3:5: what" into its parts; what does not begin so belongs to the whole file.
Finding finding(const std::string& file, const std::string& severity, const std::string& text) {
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

nlohmann::json to_json(const Finding& finding) {
  nlohmann::json json = {
      {"file", finding.file}, {"severity", finding.severity}, {"message", finding.message}};
  json["line"] = finding.line > 0 ? nlohmann::json(finding.line) : nullptr;
  json["column"] = finding.line > 0 ? nlohmann::json(finding.column) : nullptr;
  return json;
}

// What the file alone says: the environment of whoever checks it is no part of it.
std::vector<Finding> check_policy(const std::string& file, const std::string& text) {
  core::Errors errors;
  const auto config = core::read_config(text, file, core::Environment{}, &errors);
  std::vector<Finding> findings;
  for (const core::Error& error : errors) findings.push_back(finding(file, "error", error.message));
  if (config) {
    for (const std::string& warning : config->warnings)
      findings.push_back(finding(file, "warning", warning));
  }
  std::stable_sort(findings.begin(), findings.end(), [](const Finding& a, const Finding& b) {
    return std::pair(a.line, a.column) < std::pair(b.line, b.column);
  });
  return findings;
}

int check(const Common& common, const std::vector<std::string>& files) {
  if (common.policy || common.plugins) {
    return complain(common, exit_usage,
                    "it takes neither --policy nor --plugins: it looks at the files alone, each as "
                    "an argument");
  }
  std::vector<Finding> findings;
  std::string text;
  int exit = exit_ok;
  for (const std::string& file : files) {
    const auto content = core::yaml::read_text(file);
    if (!content)
      return complain(common, exit_usage,
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
    nlohmann::json document = core::document("check");
    document["files"] = files;
    document["ok"] = exit == exit_ok;
    document["findings"] = nlohmann::json::array();
    for (const Finding& one : findings) document["findings"].push_back(to_json(one));
    print_json(document);
  } else {
    print(text);
  }
  return exit;
}

}  // namespace

void add_check(CLI::App& app, Common& common) {
  CLI::App* command = app.add_subcommand(
      "check", "Show all errors of policy files, or their warnings, one line each");
  const auto files = std::make_shared<std::vector<std::string>>();
  command->add_option("policy", *files, "Policy files")->required()->type_name("FILE");
  command->footer("Exit code 1: a file has errors. Warnings alone are fine.");
  add_json_option(*command, common);
  command->callback([&common, files] {
    common.command = "check";
    common.exit = check(common, *files);
  });
}

}  // namespace attnrt::cli
