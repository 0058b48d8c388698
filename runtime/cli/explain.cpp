// runtime/cli/explain.cpp: attnrt explain: shows which backend a problem would get, and why
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cctype>

#include "cli/command.hpp"
#include "problem/problem.hpp"
#include "trace.hpp"

namespace attnrt::cli {
namespace {

struct Options {
  std::vector<std::string> words;
  std::string backend;
};

// Returns the dimensions that no word names, which are 1: " batch=1 seq_q=1".
std::string assumed(const std::vector<std::string>& words) {
  std::string text;
  std::string given = fmt::format(" {}", fmt::join(words, " "));
  for (char& letter : given) {
    if (std::isspace(static_cast<unsigned char>(letter)) != 0) letter = ' ';  // as parse_problem
  }
  for (const char* name : {"batch", "heads_q", "heads_kv", "seq_q", "seq_kv", "head_dim"}) {
    if (given.find(fmt::format(" {}=", name)) == std::string::npos)
      text += fmt::format(" {}=1", name);
  }
  return text;
}

int explain(const Common& common, const Options& options) {
  core::Problem words = core::default_problem();
  std::string arch;
  const auto parsed =
      core::parse_problem(fmt::format("{}", fmt::join(options.words, " ")), words, arch);
  if (!parsed) return report_error(common, parsed.error());
  if (!arch.empty() && words.device_type == ATTNRT_DEVICE_CPU) {
    return report_error(
        common, exit_usage,
        fmt::format("arch: found {}, but device=cpu has no arch; add device=rocm or device=cuda",
                    arch));
  }
  const auto problem = core::check_problem(&words);
  if (!problem) return report_error(common, problem.error());
  const auto runtime = open_runtime(common);
  if (!runtime) return report_error(common, runtime.error());

  const core::Decision decision = (*runtime)->explain(*problem, arch, {.backend = options.backend});
  if (common.json) {
    print_json(core::decision_json(decision));
  } else {
    const std::string dimensions = assumed(options.words);
    if (!dimensions.empty()) print(fmt::format("assumed  {}\n", dimensions));
    print(core::decision_text(decision));
  }
  return exit_code(decision.status);
}

constexpr size_t kFooterWidth = 95;

constexpr const char* kFooter =
    R"(A dimension that is not given is 1 (head_dim_v: head_dim), and the output says so. arch needs
device=rocm or device=cuda. If this machine has no such device, the manifests alone decide. Exit
code 1: nothing supports the problem.)";

// Lists the words of the vocabulary, wrapped.
std::string words_text() {
  std::string text = "Words:";
  size_t column = text.size();
  for (const core::Word& word : core::vocabulary()) {
    const bool fits = column + 1 + word.name.size() <= kFooterWidth;
    text += (fits ? " " : "\n") + std::string(word.name);
    column = (fits ? column + 1 : 0) + word.name.size();
  }
  return text + ".\n\n";
}

}  // namespace

void add_explain(CLI::App& app, Common& common) {
  CLI::App* command = app.add_subcommand(
      "explain", "Show which backend a problem would get, and why the others would not get it");
  const auto options = std::make_shared<Options>();
  command
      ->add_option("problem", options->words,
                   "The problem: dtype=f16 heads_q=9 head_dim=64 causal=true device=rocm ...")
      ->required()
      ->type_name("WORD=VALUE");
  command
      ->add_option("--backend", options->backend,
                   "Ask for this backend; without it the policy decides")
      ->type_name("NAME");
  command->footer(words_text() + kFooter);
  add_runtime_options(*command, common);
  command->callback([&common, options] {
    common.command = "explain";
    common.exit = explain(common, *options);
  });
}

}  // namespace attnrt::cli
