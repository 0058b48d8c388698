// runtime/cli/help/table.hpp: the commands and their options, as the command line parser knows them
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace attnrt::cli::help {

struct OptionRow {
  std::vector<std::string> names;  // "--policy"; none: it is positional
  std::string type;                // of its value, "FILE"; "": it takes none
  std::string description;

  // Whether the value is a path.
  bool takes_file() const;
  bool takes_folder() const;
};

struct CommandRow {
  std::string name;  // "": attnrt itself
  std::string description;
  std::string footer;
  std::vector<OptionRow> options;
};

// Returns attnrt itself, then every command that --help shows, in its order.
std::vector<CommandRow> table(const CLI::App& app);

// Each returns a text that is generated from the table.
std::string man_page(const std::vector<CommandRow>& commands);
// The words are those that describe a problem ("dtype="), which explain takes.
std::string bash_completion(const std::vector<CommandRow>& commands,
                            const std::vector<std::string>& words);
std::string zsh_completion(const std::vector<CommandRow>& commands,
                           const std::vector<std::string>& words);
std::string fish_completion(const std::vector<CommandRow>& commands,
                            const std::vector<std::string>& words);

}  // namespace attnrt::cli::help
