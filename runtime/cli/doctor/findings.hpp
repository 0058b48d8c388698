// runtime/cli/doctor/findings.hpp: what is wrong, and the line that mends it
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cli/doctor/machine.hpp"
#include "cli/doctor/self_test.hpp"
#include "runtime.hpp"

namespace attnrt::cli::doctor {

// error: nothing runs, or wrongly. warning: something does not run, or less well. note: a setting
// that is easily forgotten.
enum class Severity { error, warning, note };
const char* name_of(Severity severity);

struct Finding {
  Severity severity;
  std::string what;
  std::string mend;  // what to do: a command, or a sentence
};

// Everything that findings look at.
struct Report {
  Machine machine;
  std::map<std::string, std::string> environment;  // the variables that matter, where they are set
  // The runtime; absent: it could not be opened.
  std::shared_ptr<const core::Snapshot> snapshot;
  std::string policy_file;            // that was asked for; "": the built-in policy
  std::string policy_error;           // why the runtime could not be opened
  std::vector<std::string> warnings;  // of the runtime
  std::vector<core::PluginRow> plugins;
  std::string probe_program;   // "": it is not installed
  std::string registry_error;  // why results of probes are not kept
  std::vector<SelfTest> self_tests;
};

// The variables that are looked at, besides all that begin with ATTNRT_.
std::vector<std::string> variables_of_drivers();

// Returns what is wrong, the worst first. A pure function.
std::vector<Finding> findings(const Report& report);

}  // namespace attnrt::cli::doctor
