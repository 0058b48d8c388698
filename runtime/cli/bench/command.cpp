// runtime/cli/bench/command.cpp: attnrt bench: measures every backend on a grid of problems
#include "cli/command.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>

#include "base/text.hpp"
#include "base/threads.hpp"
#include "cli/bench/grid.hpp"
#include "cli/bench/json.hpp"
#include "cli/bench/measure.hpp"
#include "cli/bench/page.hpp"
#include "cli/bench/table.hpp"
#include "cli/io/output_file.hpp"
#include "formats/yaml.hpp"

namespace attnrt::core {
std::string_view builtin_grid();  // the text of config/bench.yaml
}

namespace attnrt::cli {
namespace {

constexpr int64_t kMaxThreads = 1024;     // the policy's limit, too
constexpr int64_t kMaxSamples = 100'000;  // more is probably a typing error

struct Options {
  std::map<std::string, std::string, std::less<>> axes;  // the values of each word with an option
  std::optional<std::string> grid, html;
  std::string groups;
  std::string backends;
  std::optional<std::string> threads;
  bench::Settings settings;
};

// Returns the option of a word: --seq-q for seq_q.
std::string option_of(std::string_view word) {
  std::string flag = "--" + std::string(word);
  std::replace(flag.begin(), flag.end(), '_', '-');
  return flag;
}

// Describes the values of a word for --help.
std::string values_text(std::string_view name) {
  if (name == bench::lengths_word().name)
    return "How the lengths of sequences differ: full, one_long, ragged";
  const core::Word* word = core::find_word(name);
  if (word == nullptr) return fmt::format("Both {0}_q and {0}_kv", name);
  if (word->kind == core::WordKind::flag) return "true, false or both";
  if (word->window) return "A number, or unbounded";
  return fmt::format("{}", fmt::join(word->choices, ", "));
}

// Reads "1,2,4". A pool of threads never has more threads than there are CPUs here. A larger count
// is an error, because two such counts would give the same pool and look like no scaling.
core::Result<std::vector<int32_t>> read_threads(std::string_view list) {
  constexpr core::Word kCount{"threads", {},         core::WordKind::integer, false, "", {},
                              1,         kMaxThreads};
  std::vector<int32_t> counts;
  for (size_t at = 0; at <= list.size();) {
    const std::string_view text = list.substr(at, list.find(',', at) - at);
    at += text.size() + 1;
    const auto value = core::parse_value(kCount, text);
    if (!value) return core::fail(ATTNRT_INVALID_ARGUMENT, "--threads: {}", value.error().message);
    const auto count = static_cast<int32_t>(std::get<int64_t>(*value));
    if (std::find(counts.begin(), counts.end(), count) != counts.end())
      return core::fail(ATTNRT_INVALID_ARGUMENT, "--threads: found {} twice, expected once", count);
    counts.push_back(count);
  }
  for (const int32_t count : counts) {
    const int32_t most = core::Threads::pool(count)->count();
    if (count > most)
      return core::fail(ATTNRT_INVALID_ARGUMENT,
                        "--threads: found {}, expected at most {}, the number of CPUs here", count,
                        most);
  }
  return counts;
}

// Parses the words' options, in the vocabulary's order, because the table's columns are easiest to
// read in that order. seq stands where seq_q does, heads where heads_q does, and lengths where
// kv_lengths does.
core::Result<std::vector<bench::Axis>> read_axes(const Options& options) {
  std::vector<bench::Axis> axes;
  for (const core::Word& word : core::vocabulary()) {
    for (const std::string_view name : bench::grid_words()) {
      const bool here = name == word.name || (word.name == "seq_q" && name == "seq") ||
                        (word.name == "heads_q" && name == "heads") ||
                        (word.name == "kv_lengths" && name == bench::lengths_word().name);
      const auto given = options.axes.find(name);
      if (!here || given == options.axes.end()) continue;
      auto axis = bench::parse_axis(name, given->second);
      if (!axis)
        return core::fail(axis.error().code, "{}: {}", option_of(name), axis.error().message);
      axes.push_back(std::move(*axis));
    }
  }
  return axes;
}

// Reads the problems from --grid, or from the words' options, or else from the built-in grid.
core::Result<std::vector<bench::GridProblem>> read_all_problems(const Options& options) {
  if (options.grid && !options.axes.empty())
    return core::fail(ATTNRT_INVALID_ARGUMENT, "found both --grid and {}, expected one of them",
                      option_of(options.axes.begin()->first));
  if (options.grid) {
    const auto text = core::yaml::read_text(*options.grid);
    if (!text)
      return core::fail(ATTNRT_INVALID_ARGUMENT, "{}: {}", core::one_line(*options.grid),
                        text.error().message);
    return bench::read_grid(*text, *options.grid);
  }
  if (options.axes.empty()) return bench::read_grid(core::builtin_grid(), "config/bench.yaml");
  const auto axes = read_axes(options);
  if (!axes) return tl::unexpected(axes.error());
  return bench::problems_of(*axes);
}

// Reads the problems, and leaves out those that are in none of the groups of --group.
core::Result<std::vector<bench::GridProblem>> read_problems(const Options& options) {
  if (options.groups.empty()) return read_all_problems(options);
  if (!options.axes.empty())
    return core::fail(ATTNRT_INVALID_ARGUMENT, "found both --group and {}, expected one of them",
                      option_of(options.axes.begin()->first));
  const auto problems = read_all_problems(options);
  if (!problems) return problems;
  auto chosen = bench::in_groups(*problems, core::split(options.groups, ','));
  if (!chosen) return core::fail(chosen.error().code, "--group: {}", chosen.error().message);
  return chosen;
}

core::Result<bench::Settings> read_settings(const Options& options) {
  bench::Settings settings = options.settings;
  settings.backends = core::split(options.backends, ',');
  if (settings.backends.empty()) {
    const std::string backend = backend_of_environment("measured");
    if (!backend.empty()) settings.backends = {backend};
  }
  if (!options.threads) return settings;
  auto threads = read_threads(*options.threads);
  if (!threads) return tl::unexpected(threads.error());
  settings.threads = std::move(*threads);
  return settings;
}

int run_bench(const Common& common, const Options& options) {
  // Before a plugin is loaded, which may change the working directory.
  std::optional<OutputPath> page;
  if (options.html) {
    auto resolved =
        resolve_output("--html", *options.html, {{"--grid", options.grid}, policy_file(common)});
    if (!resolved) return report_error(common, resolved.error());
    page = *std::move(resolved);
  }
  const auto problems = read_problems(options);
  if (!problems) return report_error(common, problems.error());
  const auto settings = read_settings(options);
  if (!settings) return report_error(common, settings.error());
  const auto open = [&](int32_t threads) { return open_runtime(common, threads); };
  const auto report = [&] {
    const ProgressBar bar(!common.json);  // removed before the table is printed
    return bench::measure(open, *problems, *settings, bar);
  }();
  if (!report) return report_error(common, report.error());
  if (page) {
    const auto written = write_file(*page, {bench::to_page(*report)});
    if (!written) return report_error(common, written.error());
  }
  if (common.json) {
    print_json(bench::to_json(*report));
  } else {
    print(bench::to_text(*report));
    if (options.html) print(fmt::format("\nwrote {}\n", one_line(*options.html)));
  }
  const int64_t failed = report->count(bench::State::failed);
  const int64_t wrong = report->count(bench::State::wrong);
  if (failed + wrong > 0) {
    const size_t backends = report->comparisons.front().measurements.size();
    print_on_stderr(
        fmt::format("attnrt bench: {} of {} measurements failed, {} gave wrong results\n", failed,
                    report->comparisons.size() * backends, wrong));
    return exit_failed;
  }
  return report->has_unserved() ? exit_no : exit_ok;
}

// Adds one option for each word that a grid may name.
void add_word_options(CLI::App& command, const std::shared_ptr<Options>& options) {
  for (const std::string_view word : bench::grid_words()) {
    const auto set = [options, name = std::string(word)](const std::string& values) {
      options->axes[name] = values;
    };
    command.add_option_function<std::string>(option_of(word), set, values_text(word))
        ->type_name("V[,V...]")
        ->group("Problems (every combination of these values)");
  }
}

constexpr const char* kFooter =
    R"(Times are medians; the backends take turns, one sample each. FLOP/s counts the scores that
lengths, causal and windows leave visible, KV B/s the keys and values that some query sees, and B/s
also the other tensors, each once. The peaks are measured in the same run: f32 multiply-adds (for
bf16 and f16: AMX, if the processor has it) and memory bandwidth.

Every output is compared with an exact reference and with the first backend's output. A wrong one
gets no time, and the exit code is 3. Exit code 1: no backend supports one of the problems, or
it does not fit in memory.

Example:
  attnrt bench --seq 512,2048 --head-dim 64,128 --dtype f32,bf16 --causal both --html bench.html
  attnrt bench --group decode,paged)";

}  // namespace

void add_bench(CLI::App& app, Common& common) {
  CLI::App* command =
      app.add_subcommand("bench", "Measure the speed of all backends on a grid of problems");
  const auto options = std::make_shared<Options>();
  command
      ->add_option("--grid", options->grid,
                   "A YAML file of problems (default: those of config/bench.yaml)")
      ->type_name("FILE");
  command
      ->add_option("--group", options->groups,
                   "Only these groups of the grid's problems (default: all)")
      ->type_name("NAME[,NAME...]");
  command
      ->add_option("--backend", options->backends,
                   "Only these backends; speeds are relative to the first (default: all)")
      ->type_name("NAME[,NAME...]");
  command
      ->add_option("--threads", options->threads,
                   "The number of cpu threads; several: measure with each (default: the policy's)")
      ->type_name("N[,N...]");
  command
      ->add_option("--samples", options->settings.samples,
                   "Samples of each backend on each problem")
      ->check(CLI::Range(int64_t{1}, kMaxSamples))
      ->capture_default_str()
      ->type_name("N");
  command->add_flag("--cold", options->settings.cold,
                    "Give each run q, k and v that are in no cache, as in a server's decode step");
  command
      ->add_option("--html", options->html,
                   "Also write a page with plots; it is one file that needs no others")
      ->type_name("FILE");
  add_word_options(*command, options);
  command->footer(kFooter);
  add_runtime_options(*command, common);
  command->callback([&common, options] {
    common.command = "bench";
    common.exit = run_bench(common, *options);
  });
}

}  // namespace attnrt::cli
