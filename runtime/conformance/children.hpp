// runtime/conformance/children.hpp: checks the rules in child processes, which may crash
//
//     parent                                                child
//     request: a line of JSON, in a memory file    ----->   descriptor 3, read by serve_as_child()
//     results and progress: lines of JSON          <-----   descriptor 4
//     what the plugin printed (rule ROB-12)        <-----   stdout and stderr, a memory file
//
// If the child ends before it has finished, the rule that was running fails. A new child then gets
// the results so far, and goes on with the next rule. If a child takes longer than the deadline, it
// is killed, with the same consequence.
#pragma once

#include <string>
#include <vector>

#include "conformance/check_rules.hpp"

namespace attnrt::conformance {

// Checks the rules on one plugin file.
// command: the program that calls serve_as_child(), and its arguments.
// Throws std::runtime_error if no child can be started.
std::vector<RuleResult> check_rules_in_children(const std::string& path, const Settings& settings,
                                                const std::vector<std::string>& command,
                                                const Progress& progress);

// Does the child's part. After a valid request it ends the process itself, so that no destructor of
// a library runs. Otherwise RETURNS the exit code.
int serve_as_child();

}  // namespace attnrt::conformance
