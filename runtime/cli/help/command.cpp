// runtime/cli/help/command.cpp: attnrt completion and attnrt man, generated from the options
#include "cli/command.hpp"

#include <memory>

#include "cli/help/table.hpp"
#include "problem/problem.hpp"

namespace attnrt::cli {
namespace {

std::vector<std::string> problem_words() {
  std::vector<std::string> words;
  for (const core::Word& word : core::vocabulary()) words.push_back(std::string(word.name) + "=");
  return words;
}

}  // namespace

void add_help(CLI::App& app, Common& common) {
  CLI::App* completion =
      app.add_subcommand("completion", "Print what a shell completes attnrt by: bash, zsh or fish");
  auto shell = std::make_shared<std::string>();
  completion->add_option("shell", *shell, "The shell")
      ->required()
      ->type_name("SHELL")
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  completion->callback([&app, &common, shell] {
    common.command = "completion";
    const auto rows = help::table(app);
    const auto words = problem_words();
    print(*shell == "bash"  ? help::bash_completion(rows, words)
          : *shell == "zsh" ? help::zsh_completion(rows, words)
                            : help::fish_completion(rows, words));
    common.exit = exit_ok;
  });
  CLI::App* man = app.add_subcommand("man", "Print the manual page, in the format of man(1)");
  man->callback([&app, &common] {
    common.command = "man";
    print(help::man_page(help::table(app)));
    common.exit = exit_ok;
  });
}

}  // namespace attnrt::cli
