// runtime/cli/run.cpp: attnrt run: runs attention on the tensors of a file, and times it
#include "run.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <map>

#include "cli/command.hpp"
#include "cli/io/expected.hpp"
#include "cli/io/inputs.hpp"
#include "cli/io/output_file.hpp"
#include "trace.hpp"

namespace attnrt::cli {
namespace {

constexpr int kMaxRepeat = 1'000'000;  // more is probably a typing error

struct Options {
  std::string input;
  std::optional<std::string> output;
  std::map<std::string_view, std::string> attributes;  // the values of the words with an option
  std::string backend;
  int repeat = 1;
  bool explain = false;
};

// A run that succeeded.
struct Report {
  std::shared_ptr<const core::Decision> decision;
  std::unique_ptr<core::Plan> plan;
  std::vector<double> microseconds;  // sorted
  Comparison comparison;             // with the file's expected tensors
};

// Returns why this backend ran. If the winner's plan failed, another candidate's plan ran, and the
// decision's reason is not the reason for that candidate.
std::string reason(const Report& report) {
  const core::Verdict* winner = report.decision->winner();
  const auto& manifest = report.plan->backend().manifest();
  const bool same = winner != nullptr &&
                    winner->candidate.plugin->manifest->name == manifest.name &&
                    winner->candidate.plugin->manifest->version_text == manifest.version_text;
  return same ? report.decision->why : "the plan of a better candidate failed";
}

// Returns the median. Of an even count it is the lower of the two in the middle, so that it is a
// time that was measured.
double median(const std::vector<double>& sorted) { return sorted[(sorted.size() - 1) / 2]; }

std::string median_text(const std::vector<double>& microseconds) {
  std::string text = time_text(median(microseconds) * 1e-6);
  if (microseconds.size() == 1) return text;
  return fmt::format("{} (median of {}, fastest {})", text, microseconds.size(),
                     time_text(microseconds.front() * 1e-6));
}

std::string accuracy_text(const char* name, const Accuracy& accuracy) {
  return fmt::format("{} max {:.2e} mean {:.2e}", name, accuracy.max, accuracy.mean);
}

void print_text(const Options& options, const Inputs& inputs, const Report& report) {
  std::string text;
  const auto row = [&](const char* name, const std::string& value) {
    text += fmt::format("{:<9}{}\n", name, one_line(value));
  };
  row("problem", core::describe(inputs.problem));
  row("backend", fmt::format("{} {} on {}", report.plan->backend_name(), report.plan->version(),
                             core::device_text(report.plan->device())));
  row("reason", reason(report));
  if (!report.decision->fallback.empty())
    row("fallback", "instead of " + report.decision->fallback);
  row("kernel", report.plan->kernel());
  row("time", median_text(report.microseconds));
  const auto& [out, lse, off] = report.comparison;
  if (out || lse) {
    std::string errors = out ? accuracy_text("out", *out) : "";
    if (lse) errors += (out ? ", " : "") + accuracy_text("lse", *lse);
    row("error", errors + ", against the file's expected values");
  } else if (!inputs.not_compared.empty()) {
    row("error", "not compared: " + inputs.not_compared);
  }
  if (options.output) row("output", *options.output);
  print(text);
  if (options.explain) print("\n" + core::decision_text(*report.decision));
}

core::Json accuracy_json(const Accuracy& accuracy) {
  return {{"max", accuracy.max}, {"mean", accuracy.mean}};
}

void print_document(const Options& options, const Inputs& inputs, const Report& report) {
  const Comparison& comparison = report.comparison;
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? core::Json(nullptr) : core::Json(text);
  };
  const auto accuracy_or_null = [](const std::optional<Accuracy>& accuracy) {
    return accuracy ? accuracy_json(*accuracy) : core::Json(nullptr);
  };
  print_json(core::document("run", {{"input", options.input},
                                    {"output", options.output},
                                    {"backend",
                                     {{"name", report.plan->backend_name()},
                                      {"version", report.plan->version()},
                                      {"device", core::device_name(report.plan->device().type)},
                                      {"device_id", report.plan->device().id},
                                      {"arch", report.plan->device().arch},
                                      {"kernel", report.plan->kernel()},
                                      {"workspace_bytes", report.plan->workspace_bytes()}}},
                                    {"because", reason(report)},
                                    {"decision", core::decision_json(*report.decision)},
                                    {"problem", core::problem_json(report.decision->problem)},
                                    {"time",
                                     {{"runs", report.microseconds.size()},
                                      {"median_us", median(report.microseconds)},
                                      {"fastest_us", report.microseconds.front()}}},
                                    {"error",
                                     {{"out", accuracy_or_null(comparison.out)},
                                      {"lse", accuracy_or_null(comparison.lse)},
                                      {"off", text_or_null(comparison.off)},
                                      {"not_compared", text_or_null(inputs.not_compared)}}}}));
}

// Runs the plan and returns the microseconds of each run, ascending.
core::Result<std::vector<double>> run_plan(const core::Plan& plan, const Inputs& inputs,
                                           int repeat) {
  std::vector<double> microseconds;
  // Before several runs, a warm-up run, which is not counted, touches memory and wakes threads.
  const int warm_up = repeat > 1 ? 1 : 0;
  for (int i = 0; i < repeat + warm_up; ++i) {
    attnrt_error error = ATTNRT_ERROR_INIT;
    const auto start = std::chrono::steady_clock::now();
    const attnrt_status status = core::run(plan, inputs.args, &error);
    const std::chrono::duration<double, std::micro> elapsed =
        std::chrono::steady_clock::now() - start;
    if (status != ATTNRT_OK) {
      const std::string message = error.message;  // begins with the backend's name after "run: "
      return core::fail(status, "{}", message.substr(message.starts_with("run: ") ? 5 : 0));
    }
    if (i >= warm_up) microseconds.push_back(elapsed.count());
  }
  std::sort(microseconds.begin(), microseconds.end());
  return microseconds;
}

core::Result<void> write_outputs(const OutputPath& output, const Inputs& inputs,
                                 const core::Plan& plan) {
  std::map<std::string, const Tensor*> tensors = {{"out", &inputs.out}};
  if (inputs.lse) tensors["lse"] = &*inputs.lse;
  return write_safetensors(output, tensors,
                           {{"problem", core::describe(inputs.problem)},
                            {"backend", plan.backend_name()},
                            {"version", plan.version()},
                            {"kernel", plan.kernel()},
                            {"made_by", "attnrt " ATTNRT_VERSION}});
}

int run(const Common& common, const Options& options) {
  // Before a plugin is loaded, which may change the working directory.
  std::optional<OutputPath> output;
  if (options.output) {
    auto resolved = resolve_output("--output", *options.output,
                                   {{"--input", options.input}, policy_file(common)});
    if (!resolved) return report_error(common, resolved.error());
    output = *std::move(resolved);
  }
  const auto inputs =
      read_inputs(options.input, Attributes(options.attributes.begin(), options.attributes.end()));
  if (!inputs) return report_error(common, inputs.error());
  for (const std::string& warning : inputs->warnings) warn(warning);
  const auto runtime = open_runtime(common);
  if (!runtime) return report_error(common, runtime.error());

  const core::Call call{.backend = options.backend};
  Report report;
  report.decision = (*runtime)->decide(inputs->problem, call);
  auto plan = (*runtime)->plan(inputs->problem, call);
  if (!plan) {
    if (options.explain && !common.json) print(core::decision_text(*report.decision));
    return report_error(common, plan.error());
  }
  report.plan = std::move(*plan);
  auto microseconds = run_plan(*report.plan, *inputs, options.repeat);
  if (!microseconds) {
    // The backend itself finds errors in index arrays, which are errors of the file.
    const core::Error& error = microseconds.error();
    const bool bad_input = error.code == ATTNRT_INVALID_ARGUMENT;
    return report_error(common,
                        {error.code, (bad_input ? options.input + ": " : "") + error.message});
  }
  report.microseconds = std::move(*microseconds);
  if (inputs->not_compared.empty()) report.comparison = compare_with_expected(*inputs);
  if (output) {
    const auto written = write_outputs(*output, *inputs, *report.plan);
    if (!written) return report_error(common, written.error());
  }
  if (common.json) {
    print_document(options, *inputs, report);
  } else {
    print_text(options, *inputs, report);
  }
  if (report.comparison.off.empty()) return exit_ok;
  print_on_stderr(fmt::format("attnrt run: {}: {}\n", one_line(options.input),
                              one_line(report.comparison.off)));
  return exit_failed;
}

// The options of attribute_words, in its order.
struct AttributeOption {
  std::string_view word;
  const char* type;  // of the value; nullptr for a flag, which has none
  const char* description;
};
constexpr std::array kAttributeOptions = {
    AttributeOption{"scale", "X", "Factor of the scores (default: 1 / sqrt(head_dim))"},
    AttributeOption{"causal", nullptr, "Query i sees the keys up to its diagonal"},
    AttributeOption{"align", "CORNER",
                    "Corner where the diagonal lies: bottom_right (the default) or top_left"},
    AttributeOption{"window_left", "N",
                    "Number of keys before the diagonal that a query sees, or unbounded"},
    AttributeOption{"window_right", "N",
                    "Number of keys after the diagonal that a query sees, or unbounded"},
    AttributeOption{"softcap", "X", "Limit that the scores approach by tanh (default: none)"},
    AttributeOption{"lse", nullptr,
                    "Also compute lse, the logarithm of each row's softmax denominator"},
    AttributeOption{"deterministic", nullptr, "Require that the same inputs give the same bits"},
    AttributeOption{"batch_invariant", nullptr,
                    "Require that a sequence's bits do not depend on the rest of the batch"},
    AttributeOption{"v_in_k", nullptr, "v is the first head_dim_v columns of k"},
    AttributeOption{"head_dim_v", "N",
                    "Number of columns of v, where v is in k (default: head_dim)"},
    AttributeOption{"out_dtype", "DTYPE",
                    "Element type of out: off (that of q, the default) or f32"}};
static_assert(std::equal(kAttributeOptions.begin(), kAttributeOptions.end(),
                         attribute_words.begin(), attribute_words.end(),
                         [](const auto& option, auto word) { return option.word == word; }));

// Adds the options of the words that the tensors do not determine. A flag has three states: not
// given, --causal and --no-causal. The metadata counts only if it is not given.
void add_attribute_options(CLI::App& command, const std::shared_ptr<Options>& options) {
  for (const auto& [word, type, description] : kAttributeOptions) {
    std::string name(word);
    std::replace(name.begin(), name.end(), '_', '-');
    if (type == nullptr) {
      const auto set = [options, word = word](int64_t sum) {
        options->attributes[word] = sum > 0 ? "true" : "false";
      };
      command.add_flag_function(fmt::format("--{0},!--no-{0}", name), set, description);
    } else {
      const auto set = [options, word = word](const std::string& value) {
        options->attributes[word] = value;
      };
      command.add_option_function<std::string>("--" + name, set, description)->type_name(type);
    }
  }
}

constexpr const char* kFooter =
    R"(The file may hold the problem's other tensors, too: mask, alibi_slopes, sinks,
kv_lengths, offsets_q, offsets_kv, page_table, k_scale, v_scale and diagonal_offset. If it holds
expected or expected_lse (F64), the errors against them are shown, and the exit code is 3 if they
are larger than rounding explains. Its __metadata__ may give the words that have options, such as
causal and window_left; options take precedence. If an option changes the answer, nothing is
compared.
Dtypes: F32, F16, BF16, BOOL, I32, and for k and v also I8 and F8_E4M3.

The command makes one plan and times its runs. If a backend cannot make its plan, the next backend
gets the problem. If a run fails, the command fails; attnrt_attention would try the next backend
then.)";

}  // namespace

void add_run(CLI::App& app, Common& common) {
  CLI::App* command =
      app.add_subcommand("run", "Run attention on the tensors of a safetensors file");
  const auto options = std::make_shared<Options>();
  command
      ->add_option("--input", options->input,
                   "File with the tensors q, k and v [batch, seq, heads, head_dim]")
      ->required()
      ->type_name("FILE");
  command
      ->add_option("--output", options->output,
                   "File to write out and lse to; without it nothing is written")
      ->type_name("FILE");
  add_attribute_options(*command, options);
  command
      ->add_option("--backend", options->backend,
                   "Use this backend, or fail; without it the policy decides")
      ->type_name("NAME");
  command
      ->add_option("--repeat", options->repeat,
                   "Number of timed runs, after one warm-up run (default: 1 run, no warm-up)")
      ->check(CLI::Range(1, kMaxRepeat))
      ->type_name("N");
  command->add_flag("--explain", options->explain, "Also show the reasons of every candidate");
  command->footer(kFooter);
  add_runtime_options(*command, common);
  command->callback([&common, options] {
    common.command = "run";
    common.exit = run(common, *options);
  });
}

}  // namespace attnrt::cli
