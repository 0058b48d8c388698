// runtime/conformance/rules.cpp: the numbered rules that a conforming plugin keeps, as one table
#include "conformance/rules.hpp"

#include <algorithm>
#include <array>

#include "conformance/rule_checks.hpp"
#include "conformance/subject.hpp"
#include "conformance/trials.hpp"

namespace attnrt::conformance {
namespace {

// A rule's id as a template argument.
template <size_t kLength>
struct Id {
  char text[kLength];
  consteval Id(const char (&literal)[kLength]) { std::copy_n(literal, kLength, text); }
};

// Gives the outcome of a rule that is checked on all random cases.
template <Id kRule>
Outcome from_cases(Subject& subject) {
  return subject.trials().outcome(kRule.text);
}

constexpr std::array kRules = {
    Rule{"ABI-1", "the file is a shared library whose manifest this runtime understands completely",
         "the plugin is not found, or some of what it can do is never used", "", check_file},
    Rule{"ABI-2", "attnrt_plugin_v1 is the only exported symbol",
         "a symbol of the plugin replaces one of another plugin or of the application", "ABI-1",
         check_exports},
    Rule{"ABI-3", "the library loads: every library and symbol that it needs is found",
         "the plugin is never a candidate", "ABI-1", check_loads},
    Rule{"ABI-4", "struct_size of attnrt_plugin includes run and is not larger than the symbol",
         "the host calls through memory that is not the table", "ABI-3", check_table},
    Rule{"ABI-5", "name and version are those of the manifest", "the plugin is refused", "ABI-4",
         check_identity},
    Rule{"ABI-6", "run is set; plan comes with plan_destroy, and open with close",
         "the plugin is refused, or it leaks memory", "ABI-4", check_calls},
    Rule{"ABI-7", "open succeeds without options, also for two instances at the same time",
         "the plugin is never a candidate", "ABI-6", check_open},
    Rule{"ABI-8",
         "devices adds only devices of the manifest's kinds and archs, or says why there is none",
         "a device is left out, or nobody learns why there is none", "ABI-7", check_devices},
    Rule{"ABI-9",
         "a backend of a device other than cpu offers attnrt.memory/1, and bytes that are copied "
         "to the device and back are unchanged",
         "workspaces cannot be allocated and tensors cannot be staged", "ABI-8", check_memory},
    Rule{"ABI-10", "get_extension returns NULL for an id that it does not know",
         "a host calls an extension that does not exist", "ABI-7", check_unknown_extension},
    Rule{"ABI-11",
         "if attnrt.timing/1 is offered, two timestamps measure what a stream did between them",
         "benchmarks show wrong speeds", "ABI-9", check_timing},
    Rule{"ABI-12",
         "loading, open and devices leave the process as it was: rounding mode, signal handlers, "
         "limits, folder, umask, environment, standard streams",
         "the application's own results, files or shutdown change", "ABI-7",
         check_process_unchanged},
    Rule{"ABI-13",
         "a process that has closed the plugin ends: handlers of exit and destructors return, and "
         "an unloadable library can be unmapped",
         "the application crashes or hangs when it ends, or when a version is replaced", "ABI-7",
         nullptr},

    Rule{"AGR-1",
         "supports answers OK, or UNSUPPORTED with a reason, to every problem that the manifest "
         "allows",
         "attnrt explain cannot say why the backend was not chosen", "ABI-9", check_reasons},
    Rule{"AGR-2", "if the manifest and supports accept a problem, plan and run succeed",
         "a problem fails although a backend was chosen for it", "AGR-1", check_agreement},
    Rule{"AGR-3", "every entry of the manifest serves at least one problem",
         "the manifest promises something that never works", "AGR-2", check_entries},

    Rule{"ROB-1", "open refuses an option that it does not know, and names it",
         "a misspelled option has no effect", "ABI-7", check_unknown_option},
    Rule{"ROB-2", "supports gives the same answer each time and from any thread",
         "the same problem is decided differently from call to call", "AGR-1", check_same_answer},
    Rule{"ROB-3", "plan and plan_destroy work many times and from several threads",
         "a server fails after a while", "AGR-2", check_many_plans},
    Rule{"ROB-4", "runs at the same time on different plans give the results that they give alone",
         "results depend on the load", "AGR-2", check_runs_at_once},
    Rule{"ROB-5",
         "a run of tensors that are smaller than the plan's bounds gives the result of an exact "
         "plan",
         "every step of a decode loop except the last is wrong", "AGR-2", check_smaller_runs},
    Rule{"ROB-6", "batch 0, seq_q 0 and seq_kv 0 are valid runs",
         "an empty request stops the server", "AGR-2", check_zero_rows},
    Rule{"ROB-7",
         "plan asks for an alignment that is a power of two, and run stays inside its workspace",
         "other memory is overwritten", "AGR-2", from_cases<"ROB-7">},
    Rule{"ROB-8", "run does not write to its inputs", "weights and caches are damaged", "AGR-2",
         from_cases<"ROB-8">},
    Rule{"ROB-9", "run writes nothing but the elements of out and lse",
         "other memory is overwritten, also between strided rows", "AGR-2", from_cases<"ROB-9">},
    Rule{"ROB-10", "run writes every element of out and lse",
         "results hold what was in memory before", "AGR-2", from_cases<"ROB-10">},
    Rule{"ROB-11",
         "index arrays that point outside their tensors give INVALID_ARGUMENT on the cpu, and do "
         "no harm on other devices",
         "a bad request stops the server, or reads another request's memory", "AGR-2",
         check_bad_indices},
    Rule{"ROB-12", "nothing is written to stdout or stderr", "the application's output is spoiled",
         "AGR-2", nullptr},
    Rule{"ROB-13", "structs of a newer host (larger struct_size, new fields zero) are accepted",
         "every plugin must be rebuilt for each runtime", "AGR-2", check_newer_host},
    Rule{"ROB-14", "run does not depend on what is in its workspace",
         "the second run of a plan is wrong", "AGR-2", check_dirty_workspace},
    Rule{"ROB-15", "a caller may pass NULL for the error",
         "a caller that does not want the text crashes", "AGR-2", check_null_error},
    Rule{"ROB-16", "plan and run leave the process as it was, too (ABI-12)",
         "the application's own results, files or shutdown change", "AGR-2",
         check_process_unchanged},

    Rule{"ACC-1", "no value's error is above twice that of a plain evaluation in the same dtype",
         "results are wrong", "AGR-2", from_cases<"ACC-1">},
    Rule{"ACC-2", "the mean error over all cases is close to that of a plain evaluation",
         "results are systematically worse", "AGR-2", check_mean_error},
    Rule{"ACC-3", "lse is the log of the softmax denominator", "partial results cannot be merged",
         "AGR-2", from_cases<"ACC-3">},
    Rule{"ACC-4", "a row that sees no key gives zeros, and lse -inf or the sink",
         "NaN spreads through a padded batch", "AGR-2", from_cases<"ACC-4">},
    Rule{"ACC-5", "scores of several thousand give finite and right results",
         "NaN in models with large activations", "AGR-2", from_cases<"ACC-5">},
    Rule{"ACC-6", "an additive mask of the lowest finite number is a number, not -inf",
         "NaN or zeros with the masks that frameworks make", "AGR-2", from_cases<"ACC-6">},
    Rule{"ACC-7",
         "what does not exist never reaches a result: past kv_lengths, between rows, in unused "
         "pages",
         "NaN from stale caches", "AGR-2", from_cases<"ACC-7">},
    Rule{"ACC-8", "k of a masked key never reaches a result", "NaN from padding", "AGR-2",
         from_cases<"ACC-8">},
    Rule{"ACC-9", "NaN in a visible key reaches the rows that see it, and no others",
         "a broken model looks healthy, or one broken row spoils the batch", "AGR-2",
         from_cases<"ACC-9">},
    Rule{"ACC-10", "if the problem is deterministic, the same inputs give the same bits",
         "runs cannot be reproduced", "AGR-2", check_deterministic},
    Rule{"ACC-11",
         "if the problem is batch_invariant, a sequence gives the same bits alone and in a batch",
         "the answer to a request depends on which others are served with it", "AGR-2",
         check_batch_invariant},
    Rule{"ACC-12",
         "if attnrt.merge/1 is offered, merged results over parts of the keys are the result over "
         "all keys",
         "what is split over parts of the keys, or over devices, is wrong", "AGR-2", check_merge},
    Rule{"ACC-13",
         "if attnrt.schedule/1 is offered, a run with a schedule gives the result of a run without "
         "one (the same bits, if the problem is deterministic), and build writes nothing else",
         "results depend on whether an application builds schedules", "AGR-2", check_schedule},
    Rule{"ACC-14", "a schedule that is built again, for other lengths, is as good as a new one",
         "every step of a captured decode loop but the first is wrong", "ACC-13",
         check_rebuilt_schedule},
    Rule{"ACC-15",
         "a run whose lengths are not those of its schedule gives NaN for each sequence that "
         "differs, and the other sequences' results",
         "a schedule that was not built again gives wrong text instead of an error", "ACC-13",
         check_other_lengths},
    Rule{"ACC-16",
         "run heeds each of causal, align, window_left, window_right, mask, softcap, alibi, sinks, "
         "scale and diagonal_offset, where the result depends on it",
         "results are those of another model", "AGR-2", check_attributes},
};

}  // namespace

std::span<const Rule> rules() { return kRules; }

const Rule* find_rule(std::string_view id) {
  const auto found =
      std::find_if(kRules.begin(), kRules.end(), [id](const Rule& rule) { return rule.id == id; });
  return found != kRules.end() ? &*found : nullptr;
}

const char* state_name(State state) {
  return state == State::passed ? "passed" : state == State::failed ? "failed" : "skipped";
}

}  // namespace attnrt::conformance
