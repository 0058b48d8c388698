// runtime/cli/help/table.cpp: the commands and their options, as the command line parser knows them
#include "cli/help/table.hpp"

namespace attnrt::cli::help {
namespace {

CommandRow row_of(const CLI::App& app, bool is_command) {
  CommandRow row{is_command ? app.get_name() : "", app.get_description(), app.get_footer(), {}};
  for (const CLI::Option* option : app.get_options()) {
    const bool is_hidden = option->get_group().empty();
    if (is_hidden) continue;
    OptionRow shown;
    for (const std::string& name : option->get_snames()) shown.names.push_back("-" + name);
    for (const std::string& name : option->get_lnames()) shown.names.push_back("--" + name);
    for (const std::string& name : option->get_fnames()) {
      if (std::find(shown.names.begin(), shown.names.end(), "--" + name) == shown.names.end())
        shown.names.push_back("--" + name);
    }
    if (option->get_items_expected_max() > 0) shown.type = option->get_type_name();
    if (option->get_items_expected_max() > 0 && shown.type.empty()) shown.type = "VALUE";
    shown.description = option->get_description();
    row.options.push_back(std::move(shown));
  }
  return row;
}

}  // namespace

bool OptionRow::takes_file() const { return type.find("FILE") != std::string::npos; }

bool OptionRow::takes_folder() const { return type.find("DIR") != std::string::npos; }

std::vector<CommandRow> table(const CLI::App& app) {
  std::vector<CommandRow> rows = {row_of(app, false)};
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (command->get_group().empty()) continue;
    rows.push_back(row_of(*command, true));
    if (rows.back().footer == rows.front().footer) rows.back().footer.clear();  // inherited
  }
  return rows;
}

}  // namespace attnrt::cli::help
