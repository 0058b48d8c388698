// runtime/conformance/rules.cpp: the numbered rules of a conforming plugin, as one table
#include <algorithm>
#include <array>

#include "conformance/checks.hpp"
#include "conformance/trial.hpp"

namespace attnrt::cli::verify {
namespace {

// A rule that the random cases answer.
template <size_t kLength>
struct Id {
  char text[kLength];
  consteval Id(const char (&literal)[kLength]) { std::copy_n(literal, kLength, text); }
};
template <Id kRule>
Outcome from_cases(Subject& subject) {
  return subject.trials().outcome(kRule.text);
}

constexpr std::array kRules = {
    Rule{"ABI-1",
         "the file is a shared library with a manifest that this runtime understands entirely",
         "the plugin is not found, or some of what it can do is never used", "", check_file},
    Rule{"ABI-2", "attnrt_plugin_v1 is the only exported symbol",
         "two plugins, or a plugin and its application, take each other's symbols", "ABI-1",
         check_exports},
    Rule{"ABI-3", "it can be loaded: nothing that it needs is missing",
         "the plugin is never a candidate", "ABI-1", check_loads},
    Rule{"ABI-4", "struct_size reaches past run and is not more than the symbol holds",
         "the host calls through memory that is not the table", "ABI-3", check_table},
    Rule{"ABI-5", "name and version are those of the manifest", "the plugin is refused", "ABI-4",
         check_identity},
    Rule{"ABI-6", "run is there; plan comes with plan_destroy, open with close",
         "the plugin is refused, or leaks", "ABI-4", check_calls},
    Rule{"ABI-7", "open succeeds without options, and twice at once",
         "the plugin is never a candidate", "ABI-6", check_open},
    Rule{"ABI-8",
         "devices adds devices of the manifest's kinds and archs, or says why there is none",
         "a device is left out, or nobody knows why none is there", "ABI-7", check_devices},
    Rule{"ABI-9",
         "a backend of a device other than cpu offers attnrt.memory/1, and copies come back",
         "no workspace can be allocated and nothing staged", "ABI-8", check_memory},
    Rule{"ABI-10", "get_extension gives NULL for an id that it does not know",
         "a host calls an extension that is not there", "ABI-7", check_unknown_extension},
    Rule{"ABI-11",
         "where attnrt.timing/1 is offered, two timestamps tell the time of what a stream did "
         "between them",
         "a benchmark shows speeds that are not so", "ABI-9", check_timing},

    Rule{"AGR-1", "supports answers OK, or UNSUPPORTED with a reason, to what the manifest allows",
         "explain cannot say why the backend was not taken", "ABI-9", check_reasons},
    Rule{"AGR-2", "where manifest and supports say yes, plan and run succeed",
         "a problem fails although a backend was chosen for it", "AGR-1", check_agreement},
    Rule{"AGR-3", "every entry of the manifest serves something",
         "the manifest promises what is never done", "AGR-2", check_entries},

    Rule{"ROB-1", "open refuses an option that it does not know, naming it",
         "a misspelled option has no effect", "ABI-7", check_unknown_option},
    Rule{"ROB-2", "supports gives the same answer each time and from several threads",
         "the same problem is decided differently from call to call", "AGR-1", check_same_answer},
    Rule{"ROB-3", "plan and plan_destroy work many times and from several threads",
         "a server stops after a while", "AGR-2", check_many_plans},
    Rule{"ROB-4", "runs at once on different plans give what they give alone",
         "results depend on the load", "AGR-2", check_runs_at_once},
    Rule{"ROB-5", "a run of smaller tensors than the plan's bounds gives what an exact plan gives",
         "every step of a decode loop but the last is wrong", "AGR-2", check_smaller_runs},
    Rule{"ROB-6", "batch 0, seq_q 0 and seq_kv 0 are runs like others",
         "an empty request ends the server", "AGR-2", check_zero_rows},
    Rule{"ROB-7",
         "the workspace that plan asks for is aligned to a power of two, and run stays inside",
         "other memory is overwritten", "AGR-2", from_cases<"ROB-7">},
    Rule{"ROB-8", "run does not write to its inputs", "weights and caches are damaged", "AGR-2",
         from_cases<"ROB-8">},
    Rule{"ROB-9", "run writes nothing beside the elements of out and lse",
         "other memory is overwritten, also between strided rows", "AGR-2", from_cases<"ROB-9">},
    Rule{"ROB-10", "run writes every element of out and lse", "results hold what was there before",
         "AGR-2", from_cases<"ROB-10">},
    Rule{"ROB-11",
         "index arrays that lead out of their tensors are INVALID_ARGUMENT on the cpu, and harm "
         "nobody elsewhere",
         "a bad request ends the server, or reads another's memory", "AGR-2", check_bad_indices},
    Rule{"ROB-12", "nothing is written to stdout or stderr", "the application's output is spoilt",
         "AGR-2", nullptr},
    Rule{"ROB-13",
         "structs of a newer host (larger struct_size, new fields zero) are served as before",
         "every plugin must be rebuilt with each runtime", "AGR-2", check_newer_host},
    Rule{"ROB-14", "run expects nothing of what is in its workspace",
         "the second run of a plan is wrong", "AGR-2", check_dirty_workspace},
    Rule{"ROB-15", "a NULL error is no error", "a caller who does not want the text crashes",
         "AGR-2", check_null_error},

    Rule{"ACC-1",
         "each value is as near to the exact one as twice a plain evaluation in the same dtype",
         "wrong results", "AGR-2", from_cases<"ACC-1">},
    Rule{"ACC-2", "the mean error over all cases is that of a plain evaluation",
         "results are systematically worse", "AGR-2", check_mean_error},
    Rule{"ACC-3", "lse is the log of the denominator", "attention in parts cannot be merged",
         "AGR-2", from_cases<"ACC-3">},
    Rule{"ACC-4", "a row that sees nothing gives zeros, and lse -inf or the sink",
         "NaN spreads through a padded batch", "AGR-2", from_cases<"ACC-4">},
    Rule{"ACC-5", "scores of thousands give finite, right results",
         "NaN in models with large activations", "AGR-2", from_cases<"ACC-5">},
    Rule{"ACC-6", "an additive mask of the least finite number is a number, not -inf",
         "NaN or zeros with masks that frameworks make", "AGR-2", from_cases<"ACC-6">},
    Rule{"ACC-7",
         "what does not exist never reaches a result: past kv_lengths, between rows, in unused "
         "pages",
         "NaN from stale caches", "AGR-2", from_cases<"ACC-7">},
    Rule{"ACC-8", "k of a masked key never reaches a result", "NaN from padding", "AGR-2",
         from_cases<"ACC-8">},
    Rule{"ACC-9", "NaN in what is visible reaches the rows that see it, and no others",
         "a broken model looks healthy, or a broken row spoils the batch", "AGR-2",
         from_cases<"ACC-9">},
    Rule{"ACC-10", "with deterministic, the same inputs give the same bits",
         "runs cannot be reproduced", "AGR-2", check_deterministic},
};

}  // namespace

std::span<const Rule> rules() { return kRules; }

const Rule* find_rule(std::string_view id) {
  for (const Rule& rule : kRules) {
    if (rule.id == id) return &rule;
  }
  return nullptr;
}

const char* state_name(State state) {
  return state == State::passed ? "passed" : state == State::failed ? "failed" : "skipped";
}

}  // namespace attnrt::cli::verify
