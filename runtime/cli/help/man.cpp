// runtime/cli/help/man.cpp: writes the manual page attnrt(1)
#include <fmt/format.h>

#include "base/text.hpp"
#include "cli/help/table.hpp"

namespace attnrt::cli::help {
namespace {

// As roff reads it: hyphens of options, backslashes, and lines that begin with a control character.
std::string escaped(const std::string& text) {
  std::string result;
  bool begins_line = true;
  for (const char c : text) {
    if (begins_line && (c == '.' || c == '\'')) result += "\\&";
    if (c == '\\') {
      result += "\\e";
    } else if (c == '-') {
      result += "\\-";
    } else {
      result += c;
    }
    begins_line = c == '\n';
  }
  return result;
}

std::string option_text(const OptionRow& option) {
  const std::string names = core::joined(option.names, ", ");
  const std::string type = option.type.empty() ? "" : " \\fI" + escaped(option.type) + "\\fR";
  return fmt::format(".TP\n\\fB{}\\fR{}\n{}\n", escaped(names), type, escaped(option.description));
}

// A text whose lines stay as they are.
std::string preformatted(const std::string& text) {
  return fmt::format(".PP\n.nf\n{}\n.fi\n", escaped(text));
}

}  // namespace

std::string man_page(const std::vector<CommandRow>& commands) {
  const CommandRow& attnrt = commands.front();
  const size_t colon = attnrt.description.find(": ");
  const size_t stop = attnrt.description.find(". ");
  std::string text = fmt::format(
      ".TH ATTNRT 1 \"\" \"attnrt {}\" \"User Commands\"\n"
      ".SH NAME\nattnrt \\- {}\n"
      ".SH SYNOPSIS\n.B attnrt\n\\fICOMMAND\\fR [\\fIOPTION\\fR]...\n"
      ".SH DESCRIPTION\n{}\n",
      ATTNRT_VERSION, escaped(attnrt.description.substr(colon + 2, stop - colon - 2)),
      escaped(attnrt.description.substr(stop + 2)));
  text += ".SH OPTIONS\n";
  for (const OptionRow& option : attnrt.options) text += option_text(option);
  text += ".SH COMMANDS\n";
  for (size_t i = 1; i < commands.size(); ++i) {
    const CommandRow& command = commands[i];
    std::string arguments;
    for (const OptionRow& option : command.options) {
      if (option.names.empty()) arguments += " \\fI" + escaped(option.type) + "\\fR";
    }
    text += fmt::format(".SS \"attnrt {}{}\"\n{}\n", command.name, arguments,
                        escaped(command.description));
    for (const OptionRow& option : command.options) {
      if (!option.names.empty()) text += option_text(option);
    }
    if (!command.footer.empty()) text += preformatted(command.footer);
  }
  return text + ".SH \"EXIT STATUS, ENVIRONMENT, EXAMPLES\"\n" + preformatted(attnrt.footer);
}

}  // namespace attnrt::cli::help
