// runtime/cli/run.cpp: attnrt run: a file with q, k and v into a file with out, and what was decided, run and measured
#include "run.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/command.hpp"
#include "cli/io/inputs.hpp"
#include "cli/io/output_file.hpp"
#include "trace.hpp"

namespace attnrt::cli {
namespace {

struct Options {
  std::string input;
  std::optional<std::string> output;
  std::optional<bool> causal, lse, deterministic;
  std::optional<std::string> align, window_left, window_right, scale, softcap;
  std::string backend;
  int repeat = 1;
  bool explain = false;
};

// One run that went well.
struct Report {
  std::shared_ptr<const core::Decision> decision;
  std::unique_ptr<core::Plan> plan;
  std::vector<double> microseconds;  // sorted
  std::optional<Accuracy> out, lse;  // against what the file expects
};

Attributes attributes_of(const Options& options) {
  Attributes attributes;
  const auto add_flag = [&](const char* word, const std::optional<bool>& flag) {
    if (flag) attributes.emplace_back(word, *flag ? "true" : "false");
  };
  const auto add = [&](const char* word, const std::optional<std::string>& value) {
    if (value) attributes.emplace_back(word, *value);
  };
  add_flag("causal", options.causal);
  add_flag("lse", options.lse);
  add_flag("deterministic", options.deterministic);
  add("align", options.align);
  add("window_left", options.window_left);
  add("window_right", options.window_right);
  add("scale", options.scale);
  add("softcap", options.softcap);
  return attributes;
}

// The winner's plan may have failed: then another candidate's plan runs, and the decision's reason is not its own.
std::string reason(const Report& report) {
  const core::Verdict* winner = report.decision->winner();
  const auto& manifest = report.plan->backend().manifest();
  const bool same = winner != nullptr &&
                    winner->candidate.plugin->manifest->name == manifest.name &&
                    winner->candidate.plugin->manifest->version_text == manifest.version_text;
  return same ? report.decision->why : "the plan of a better candidate failed";
}

std::string time_text(double microseconds) {
  if (microseconds < 1e3) return fmt::format("{:.1f} us", microseconds);
  if (microseconds < 1e6) return fmt::format("{:.2f} ms", microseconds / 1e3);
  return fmt::format("{:.2f} s", microseconds / 1e6);
}

// Of an even count the lower middle: a time that was measured.
double median(const std::vector<double>& sorted) { return sorted[(sorted.size() - 1) / 2]; }

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
  row("because", reason(report));
  if (!report.decision->fallback.empty())
    row("fallback", "passed over: " + report.decision->fallback);
  row("kernel", report.plan->kernel());
  const auto& times = report.microseconds;
  row("time", times.size() == 1
                  ? time_text(times[0])
                  : fmt::format("{} (median of {}, fastest {})", time_text(median(times)),
                                times.size(), time_text(times.front())));
  if (report.out) {
    row("error", accuracy_text("out", *report.out) +
                     (report.lse ? ", " + accuracy_text("lse", *report.lse) : "") +
                     " against the file's float64");
  }
  if (options.output) row("written", *options.output);
  print(text);
  if (options.explain) print("\n" + core::decision_text(*report.decision));
}

// JSON has no infinity: null is an error that is not a number.
nlohmann::json accuracy_json(const std::optional<Accuracy>& accuracy) {
  if (!accuracy) return nullptr;
  const auto number = [](double value) {
    return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json();
  };
  return {{"max", number(accuracy->max)}, {"mean", number(accuracy->mean)}};
}

void print_document(const Options& options, const Report& report) {
  nlohmann::json document = core::document("run");
  document["input"] = options.input;
  document["output"] = options.output ? nlohmann::json(*options.output) : nullptr;
  document["backend"] = {{"name", report.plan->backend_name()},
                         {"version", report.plan->version()},
                         {"device", core::device_name(report.plan->device().type)},
                         {"device_id", report.plan->device().id},
                         {"arch", report.plan->device().arch},
                         {"kernel", report.plan->kernel()},
                         {"workspace_bytes", report.plan->workspace_bytes()}};
  document["because"] = reason(report);
  document["decision"] = core::decision_json(*report.decision);
  document["problem"] = document["decision"]["problem"];
  document["time"] = {{"runs", report.microseconds.size()},
                      {"median_us", median(report.microseconds)},
                      {"fastest_us", report.microseconds.front()}};
  document["error"] = {{"out", accuracy_json(report.out)}, {"lse", accuracy_json(report.lse)}};
  print_json(document);
}

core::Result<std::vector<double>> run_plan(const core::Plan& plan, const Inputs& inputs,
                                           int repeat) {
  std::vector<double> microseconds;
  const int warm_up = repeat > 1 ? 1 : 0;  // the first run also touches memory and wakes threads
  for (int i = 0; i < repeat + warm_up; ++i) {
    attnrt_error error = ATTNRT_ERROR_INIT;
    const auto start = std::chrono::steady_clock::now();
    const attnrt_status status = core::run(plan, inputs.args, &error);
    const std::chrono::duration<double, std::micro> elapsed =
        std::chrono::steady_clock::now() - start;
    if (status != ATTNRT_OK) {
      const std::string message = error.message;  // names the backend itself
      return core::fail(status, "{}", message.substr(message.starts_with("run: ") ? 5 : 0));
    }
    if (i >= warm_up) microseconds.push_back(elapsed.count());
  }
  std::sort(microseconds.begin(), microseconds.end());
  return microseconds;
}

core::Result<void> write_outputs(const std::string& path, const Inputs& inputs,
                                 const core::Plan& plan) {
  std::map<std::string, const Tensor*> tensors = {{"out", &inputs.out}};
  if (inputs.lse) tensors["lse"] = &*inputs.lse;
  return write_safetensors(path, tensors,
                           {{"problem", core::describe(inputs.problem)},
                            {"backend", plan.backend_name()},
                            {"version", plan.version()},
                            {"kernel", plan.kernel()},
                            {"made_by", "attnrt " ATTNRT_VERSION}});
}

int run(const Common& common, const Options& options) {
  if (options.output) {
    const auto writable = check_output(*options.output);
    if (!writable) return complain(common, writable.error());
    std::error_code error;  // of one that does not exist yet, which then is another
    if (std::filesystem::equivalent(options.input, *options.output, error)) {
      return complain(
          common, exit_usage,
          fmt::format(
              "--output {} is the file of --input {}, which it would replace; give another name",
              *options.output, options.input));
    }
  }
  const auto inputs = read_inputs(options.input, attributes_of(options));
  if (!inputs) return complain(common, inputs.error());
  for (const std::string& warning : inputs->warnings) warn(warning);
  const auto runtime = open_runtime(common);
  if (!runtime) return complain(common, runtime.error());

  const core::Call call{.backend = options.backend};
  Report report;
  report.decision = (*runtime)->decide(inputs->problem, call);
  auto plan = (*runtime)->plan(inputs->problem, call);
  if (!plan) {
    if (options.explain && !common.json) print(core::decision_text(*report.decision));
    return complain(common, plan.error());
  }
  report.plan = std::move(*plan);
  auto microseconds = run_plan(*report.plan, *inputs, options.repeat);
  if (!microseconds) {
    const bool input = microseconds.error().code ==
                       ATTNRT_INVALID_ARGUMENT;  // what only a backend looks at: index arrays
    const std::string place = input ? options.input + ": " : "";
    return complain(common, {microseconds.error().code, place + microseconds.error().message});
  }
  report.microseconds = std::move(*microseconds);

  const auto& tensors = inputs->tensors;
  if (const auto expected = tensors.find("expected"); expected != tensors.end())
    report.out = compare(inputs->out, expected->second);
  if (const auto expected = tensors.find("expected_lse"); inputs->lse && expected != tensors.end())
    report.lse = compare(*inputs->lse, expected->second);
  if (options.output) {
    const auto written = write_outputs(*options.output, *inputs, *report.plan);
    if (!written) return complain(common, written.error());
  }
  if (common.json) {
    print_document(options, report);
  } else {
    print_text(options, *inputs, report);
  }
  return exit_ok;
}

}  // namespace

void add_run(CLI::App& app, Common& common) {
  CLI::App* command =
      app.add_subcommand("run", "Run attention on the tensors of a safetensors file");
  const auto options = std::make_shared<Options>();
  command
      ->add_option("--input", options->input,
                   "Tensors q, k, v [batch, seq, heads, head_dim] and what else the problem has")
      ->required()
      ->type_name("FILE");
  command
      ->add_option("--output", options->output,
                   "Where out (and lse) go; without it nothing is written")
      ->type_name("FILE");
  // Not given, given or refused: the file's metadata speaks only in the first case.
  const auto add_switch = [&](const char* names, std::optional<bool> Options::*field,
                              const char* description) {
    const auto set = [options, field](int64_t sum) { (*options).*field = sum > 0; };
    command->add_flag_function(names, set, description);
  };
  add_switch("--causal,!--no-causal", &Options::causal, "Query i sees keys up to its diagonal");
  command
      ->add_option("--align", options->align, "Where the diagonal starts: bottom_right or top_left")
      ->type_name("CORNER");
  command
      ->add_option("--window-left", options->window_left,
                   "Keys before the diagonal that are seen, or unbounded")
      ->type_name("N");
  command
      ->add_option("--window-right", options->window_right,
                   "Keys after the diagonal that are seen, or unbounded")
      ->type_name("N");
  command->add_option("--scale", options->scale, "Of the scores (default: 1 / sqrt(head_dim))")
      ->type_name("X");
  command->add_option("--softcap", options->softcap, "Bound of the scores (default: none)")
      ->type_name("X");
  add_switch("--lse,!--no-lse", &Options::lse,
             "Also compute lse, the logarithm of each row's denominator");
  add_switch("--deterministic,!--no-deterministic", &Options::deterministic,
             "The same inputs must give the same bits");
  command
      ->add_option("--backend", options->backend,
                   "This backend or an error, instead of leaving it to the policy")
      ->type_name("NAME");
  command
      ->add_option("--repeat", options->repeat,
                   "Runs to time, after one that does not count (default: 1 run, as it is)")
      ->check(CLI::Range(1, 1000000))
      ->type_name("N");
  command->add_flag("--explain", options->explain, "Also show every candidate's reasons");
  command->footer(
      "The file may also hold mask, alibi_slopes, sinks, kv_lengths, offsets_q, offsets_kv, "
      "page_table (the problem's "
      "other\n"
      "tensors), expected and expected_lse (F64: the error against them is shown). Its "
      "__metadata__ may give scale, "
      "causal,\n"
      "align, window_left, window_right, softcap, lse and deterministic; flags win. Dtypes: F32 "
      "F16 BF16, BOOL, I32.\n"
      "It makes one plan and times it: a backend whose plan fails passes the problem on to the "
      "next one, but a run "
      "that fails\n"
      "is an error (a one-shot call, attnrt_attention, would go on to the next one there, too).");
  add_runtime_options(*command, common);
  command->callback([&common, options] {
    common.command = "run";
    common.exit = run(common, *options);
  });
}

}  // namespace attnrt::cli
