// runtime/conformance/checks.hpp: one function for each rule of verify_rules.cpp
#pragma once

#include "conformance/subject.hpp"

namespace attnrt::cli::verify {

// verify_abi.cpp: the file, the table, the instance
Outcome check_file(Subject& subject);
Outcome check_exports(Subject& subject);
Outcome check_loads(Subject& subject);
Outcome check_table(Subject& subject);
Outcome check_identity(Subject& subject);
Outcome check_calls(Subject& subject);
Outcome check_open(Subject& subject);
Outcome check_devices(Subject& subject);
Outcome check_memory(Subject& subject);
Outcome check_unknown_extension(Subject& subject);
Outcome check_timing(Subject& subject);

// verify_robust.cpp: agreement of manifest and supports, and calls as hosts make them
Outcome check_reasons(Subject& subject);
Outcome check_agreement(Subject& subject);
Outcome check_entries(Subject& subject);
Outcome check_unknown_option(Subject& subject);
Outcome check_same_answer(Subject& subject);
Outcome check_many_plans(Subject& subject);
Outcome check_runs_at_once(Subject& subject);
Outcome check_smaller_runs(Subject& subject);
Outcome check_zero_rows(Subject& subject);
Outcome check_bad_indices(Subject& subject);
Outcome check_newer_host(Subject& subject);
Outcome check_dirty_workspace(Subject& subject);
Outcome check_null_error(Subject& subject);
Outcome check_deterministic(Subject& subject);

// verify_agree.cpp
Outcome check_mean_error(Subject& subject);

}  // namespace attnrt::cli::verify
