// runtime/conformance/rule_checks.hpp: the function that checks each rule of rules.cpp
#pragma once

#include "conformance/rules.hpp"

namespace attnrt::conformance {

// abi_rules.cpp: the file, the table and the instance
Outcome check_file(Subject& subject);
Outcome check_exports(Subject& subject);
Outcome check_loads(Subject& subject);
Outcome check_table(Subject& subject);
Outcome check_identity(Subject& subject);
Outcome check_calls(Subject& subject);
Outcome check_open(Subject& subject);

// process_state.cpp: what the plugin did to the process
Outcome check_process_unchanged(Subject& subject);

// device_rules.cpp: the devices, and the extensions that work on them
Outcome check_devices(Subject& subject);
Outcome check_memory(Subject& subject);
Outcome check_unknown_extension(Subject& subject);
Outcome check_timing(Subject& subject);

// agreement_rules.cpp: what manifest and supports promise, and the mean error over all cases
Outcome check_reasons(Subject& subject);
Outcome check_agreement(Subject& subject);
Outcome check_entries(Subject& subject);
Outcome check_mean_error(Subject& subject);

// call_rules.cpp: calls that are repeated, made at the same time, or made with unusual arguments
Outcome check_unknown_option(Subject& subject);
Outcome check_same_answer(Subject& subject);
Outcome check_many_plans(Subject& subject);
Outcome check_null_error(Subject& subject);

// rerun_rules.cpp: cases that are run again in another way
Outcome check_runs_at_once(Subject& subject);
Outcome check_smaller_runs(Subject& subject);
Outcome check_zero_rows(Subject& subject);
Outcome check_bad_indices(Subject& subject);
Outcome check_newer_host(Subject& subject);
Outcome check_dirty_workspace(Subject& subject);
Outcome check_deterministic(Subject& subject);
Outcome check_batch_invariant(Subject& subject);

// attribute_rules.cpp: cases in which one attribute of the problem decides the result
Outcome check_attributes(Subject& subject);

// merge_rules.cpp: the extension that merges results over parts of the keys
Outcome check_merge(Subject& subject);

// schedule_rules.cpp: the extension that divides the work of many runs once
Outcome check_schedule(Subject& subject);
Outcome check_rebuilt_schedule(Subject& subject);
Outcome check_other_lengths(Subject& subject);

}  // namespace attnrt::conformance
