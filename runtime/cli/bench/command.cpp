// runtime/cli/bench/command.cpp: attnrt bench: a grid of problems into the speed of every backend on each, as table, JSON and page
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "base/text.hpp"
#include "base/threads.hpp"
#include "cli/bench/bench.hpp"
#include "cli/io/output_file.hpp"
#include "formats/yaml.hpp"

namespace attnrt::core {
std::string_view builtin_grid();  // config/bench.yaml
}

namespace attnrt::cli {
namespace {

struct Options {
  std::map<std::string, std::string, std::less<>> axes;  // of the words that flags gave
  std::optional<std::string> grid, html;
  std::string backends;
  std::optional<std::string> threads;
  bench::Settings settings;
};

// seq_q's is --seq-q.
std::string flag_of(std::string_view word) {
  std::string flag = "--" + std::string(word);
  std::replace(flag.begin(), flag.end(), '_', '-');
  return flag;
}

// For --help: what the word takes, where that is not just a number.
std::string values_text(std::string_view name) {
  const core::Word* word = core::find_word(name);
  if (word == nullptr) return fmt::format("{0}_q and {0}_kv", name);
  if (word->kind == core::WordKind::flag) return "true, false or both";
  return word->window ? "A number or unbounded" : fmt::format("{}", fmt::join(word->choices, ", "));
}

// "1,2,4". Each must be what the cpu then has: more would be capped without a word, and two of those look like no scaling.
core::Result<std::vector<int32_t>> read_threads(std::string_view list) {
  constexpr core::Word kCount{"threads", core::WordKind::integer, false, "", {}, 1, 1024};
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
                        "--threads: found {}, expected at most {}, the CPUs here", count, most);
  }
  return counts;
}

core::Result<std::vector<core::Problem>> read_problems(const Options& options) {
  if (options.grid && !options.axes.empty())
    return core::fail(ATTNRT_INVALID_ARGUMENT, "found both --grid and {}, expected one of them",
                      flag_of(options.axes.begin()->first));
  if (options.grid) {
    const auto text = core::yaml::read_text(*options.grid);
    if (!text)
      return core::fail(ATTNRT_INVALID_ARGUMENT, "{}: {}", core::one_line(*options.grid),
                        text.error().message);
    return bench::read_grid(*text, *options.grid);
  }
  if (options.axes.empty()) return bench::read_grid(core::builtin_grid(), "config/bench.yaml");
  std::vector<bench::Axis> axes;
  for (const core::Word& word :
       core::vocabulary()) {  // a table reads best in the vocabulary's order
    for (const std::string_view name : bench::grid_words()) {
      const bool here = name == word.name || (word.name == "seq_q" && name == "seq") ||
                        (word.name == "heads_q" && name == "heads");
      const auto given = options.axes.find(name);
      if (!here || given == options.axes.end()) continue;
      auto axis = bench::parse_axis(name, given->second);
      if (!axis)
        return core::fail(axis.error().code, "{}: {}", flag_of(name), axis.error().message);
      axes.push_back(std::move(*axis));
    }
  }
  return bench::problems_of(axes);
}

int run_bench(const Common& common, const Options& options) {
  if (options.html) {
    const auto writable = check_output(*options.html);
    if (!writable) return complain(common, writable.error());
    for (const auto& input : {options.grid, common.policy}) {
      std::error_code none;  // what is not there is not overwritten
      if (!input || !std::filesystem::equivalent(*input, *options.html, none)) continue;
      return complain(
          common, exit_usage,
          fmt::format("--html {} is the file of {}, which it would replace; give another name",
                      *options.html, input == options.grid ? "--grid" : "--policy"));
    }
  }
  const auto problems = read_problems(options);
  if (!problems) return complain(common, problems.error());
  bench::Settings settings = options.settings;
  settings.backends = core::split(options.backends, ',');
  if (options.threads) {
    auto threads = read_threads(*options.threads);
    if (!threads) return complain(common, threads.error());
    settings.threads = std::move(*threads);
  }
  const auto report = [&] {
    const ProgressBar bar(!common.json);
    return bench::measure([&](int32_t threads) { return open_runtime(common, threads); }, *problems,
                          settings, bar);
  }();
  if (!report) return complain(common, report.error());
  if (options.html) {
    const auto written = write_file(*options.html, {bench::to_page(*report)});
    if (!written) return complain(common, written.error());
  }
  if (common.json) {
    print_json(bench::to_json(*report));
  } else {
    print(bench::to_text(*report));
    if (options.html) print(fmt::format("\nwritten {}\n", one_line(*options.html)));
  }
  const int64_t failed = report->count(bench::State::failed),
                wrong = report->count(bench::State::wrong);
  if (failed + wrong > 0) {
    fmt::print(stderr, "attnrt bench: {} of {} measurements failed, {} gave wrong results\n",
               failed, report->comparisons.size() * report->comparisons.front().measurements.size(),
               wrong);
    return exit_failed;
  }
  return report->has_unserved() ? exit_no : exit_ok;
}

}  // namespace

void add_bench(CLI::App& app, Common& common) {
  CLI::App* command =
      app.add_subcommand("bench", "Measure backends side by side on a grid of problems");
  const auto options = std::make_shared<Options>();
  command
      ->add_option("--grid", options->grid,
                   "Problems as YAML, as config/bench.yaml has them (default: that one)")
      ->type_name("FILE");
  command
      ->add_option("--backend", options->backends,
                   "Only these, the first one to compare with (default: all)")
      ->type_name("NAME[,NAME...]");
  command
      ->add_option("--threads", options->threads,
                   "Of the cpu; several: each in turn (default: the policy's)")
      ->type_name("N[,N...]");
  command
      ->add_option("--samples", options->settings.samples, "Of each backend and problem, in turn")
      ->check(CLI::Range(int64_t{1}, int64_t{100'000}))
      ->capture_default_str()
      ->type_name("N");
  command->add_flag(
      "--cold", options->settings.cold,
      "Each run on other q, k and v, which no cache holds: as a server's decode finds them");
  command
      ->add_option("--html", options->html,
                   "Also write a page with plots, which needs nothing but itself")
      ->type_name("FILE");
  for (const std::string_view word : bench::grid_words()) {
    const auto set = [options, name = std::string(word)](const std::string& values) {
      options->axes[name] = values;
    };
    command->add_option_function<std::string>(flag_of(word), set, values_text(word))
        ->type_name("V[,V...]")
        ->group("Problems: every combination of these");
  }
  command->footer(
      "Times are medians of samples in turn; FLOP count what causal and windows leave visible, B "
      "each tensor once. "
      "The\n"
      "peaks are measured in the same run: f32 multiply-adds (bf16, f16: AMX, where the processor "
      "has it) and memory.\n"
      "Every output is checked against the reference and the first backend: one that is wrong gets "
      "no number, and "
      "exit\n"
      "code 3. Exit code 1: no backend supports a problem, or memory does not hold it.\n\n"
      "  attnrt bench --seq 512,2048 --head-dim 64,128 --dtype f32,bf16 --causal both --html "
      "bench.html");
  add_runtime_options(*command, common);
  command->callback([&common, options] {
    common.command = "bench";
    common.exit = run_bench(common, *options);
  });
}

}  // namespace attnrt::cli
