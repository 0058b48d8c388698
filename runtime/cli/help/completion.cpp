// runtime/cli/help/completion.cpp: writes what shells complete `attnrt` by
#include <fmt/format.h>

#include <functional>
#include <set>

#include "base/text.hpp"
#include "cli/help/table.hpp"

namespace attnrt::cli::help {
namespace {

// The names of all options of all commands that `wanted` holds for.
std::vector<std::string> names_of(const std::vector<CommandRow>& commands,
                                  const std::function<bool(const OptionRow&)>& wanted) {
  std::set<std::string> names;
  for (const CommandRow& command : commands) {
    for (const OptionRow& option : command.options) {
      if (wanted(option)) names.insert(option.names.begin(), option.names.end());
    }
  }
  return {names.begin(), names.end()};
}

std::vector<std::string> command_names(const std::vector<CommandRow>& commands) {
  std::vector<std::string> names;
  for (const CommandRow& command : commands) {
    if (!command.name.empty()) names.push_back(command.name);
  }
  return names;
}

std::vector<std::string> long_names(const CommandRow& command) {
  std::vector<std::string> names;
  for (const OptionRow& option : command.options) {
    for (const std::string& name : option.names) {
      if (name.starts_with("--")) names.push_back(name);
    }
  }
  return names;
}

bool takes_words(const CommandRow& command) { return command.name == "explain"; }

bool takes_files(const CommandRow& command) {
  for (const OptionRow& option : command.options) {
    if (option.names.empty() && option.takes_file()) return true;
  }
  return false;
}

// A text in single quotes, for every shell.
std::string quoted(std::string text) {
  for (size_t at = 0; (at = text.find('\'', at)) != std::string::npos; at += 4)
    text.replace(at, 1, "'\\''");
  return "'" + text + "'";
}

// The first sentence, in one line.
std::string short_text(const std::string& description) {
  return description.substr(0, description.find_first_of(".;\n"));
}

}  // namespace

std::string bash_completion(const std::vector<CommandRow>& commands,
                            const std::vector<std::string>& words) {
  const auto files = names_of(commands, [](const auto& option) { return option.takes_file(); });
  const auto folders = names_of(commands, [](const auto& option) { return option.takes_folder(); });
  const auto others = names_of(commands, [](const auto& option) {
    return !option.type.empty() && !option.takes_file() && !option.takes_folder();
  });
  std::string text = fmt::format(
      R"(# completion of attnrt for bash; `attnrt completion bash` prints it
_attnrt() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}} command='' word
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD - 1}}"; do
    case $word in
      {}) command=$word; break ;;
    esac
  done
  COMPREPLY=()
  case $previous in
    {}) mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
    {}) mapfile -t COMPREPLY < <(compgen -d -- "$current"); return ;;
    {}) return ;;
  esac
  case $command in
)",
      core::joined(command_names(commands), "|"), core::joined(files, "|"),
      core::joined(folders, "|"), core::joined(others, "|"));
  for (const CommandRow& command : commands) {
    std::vector<std::string> all = long_names(command);
    const auto more = command.name.empty()   ? command_names(commands)
                      : takes_words(command) ? words
                                             : std::vector<std::string>();
    all.insert(all.begin(), more.begin(), more.end());
    text += fmt::format("    {}) mapfile -t COMPREPLY < <(compgen -W {} -- \"$current\"){} ;;\n",
                        command.name.empty() ? "''" : command.name, quoted(core::joined(all, " ")),
                        takes_files(command)
                            ? "\n      mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "
                              "\"$current\")"
                            : "");
  }
  return text + R"(  esac
  if [[ ${COMPREPLY[0]-} == *= ]]; then compopt -o nospace 2>/dev/null; fi
}
complete -o filenames -F _attnrt attnrt
)";
}

std::string zsh_completion(const std::vector<CommandRow>& commands,
                           const std::vector<std::string>& words) {
  // A specification of _arguments: "--name[description]:TYPE:action".
  const auto specification = [](const std::string& name, const OptionRow& option) {
    std::string description = short_text(option.description);
    for (char& c : description) {
      if (c == '[' || c == ']' || c == ':') c = ' ';
    }
    std::string type = option.type;
    for (char& c : type) {
      if (c == ':') c = ' ';
    }
    const char* action = option.takes_file() ? "_files" : option.takes_folder() ? "_files -/" : "";
    return quoted(fmt::format("{}[{}]", name, description) +
                  (option.type.empty() ? "" : fmt::format(":{}:{}", type, action)));
  };
  std::string text =
      "#compdef attnrt\n# completion of attnrt for zsh; `attnrt completion zsh` prints it\n"
      "local -a commands=(\n";
  for (size_t i = 1; i < commands.size(); ++i)
    text +=
        fmt::format("  {}\n", quoted(commands[i].name + ":" + short_text(commands[i].description)));
  text += ")\nif ((CURRENT == 2)); then\n  _describe command commands\n  return\nfi\n";
  text += "case $words[2] in\n";
  for (size_t i = 1; i < commands.size(); ++i) {
    const CommandRow& command = commands[i];
    text += fmt::format("  {})\n    shift words\n    ((CURRENT--))\n    _arguments", command.name);
    for (const OptionRow& option : command.options) {
      for (const std::string& name : option.names) {
        if (name.starts_with("--")) text += " \\\n      " + specification(name, option);
      }
    }
    if (takes_words(command)) {
      text += " \\\n      " + quoted("*:word:(" + core::joined(words, " ") + ")");
    }
    if (takes_files(command)) text += " \\\n      '*:FILE:_files'";
    text += "\n    ;;\n";
  }
  return text + "esac\n";
}

std::string fish_completion(const std::vector<CommandRow>& commands,
                            const std::vector<std::string>& words) {
  std::string text =
      "# completion of attnrt for fish; `attnrt completion fish` prints it\n"
      "complete -c attnrt -f\n";
  for (size_t i = 1; i < commands.size(); ++i) {
    text += fmt::format("complete -c attnrt -n __fish_use_subcommand -a {} -d {}\n",
                        commands[i].name, quoted(short_text(commands[i].description)));
  }
  for (size_t i = 1; i < commands.size(); ++i) {
    const CommandRow& command = commands[i];
    const std::string when = quoted("__fish_seen_subcommand_from " + command.name);
    for (const OptionRow& option : command.options) {
      for (const std::string& name : option.names) {
        if (!name.starts_with("--")) continue;
        const char* value = option.type.empty()     ? ""
                            : option.takes_file()   ? " -r -F"
                            : option.takes_folder() ? " -x -a '(__fish_complete_directories)'"
                                                    : " -x";
        text += fmt::format("complete -c attnrt -n {} -l {}{} -d {}\n", when, name.substr(2), value,
                            quoted(short_text(option.description)));
      }
    }
    if (takes_words(command))
      text +=
          fmt::format("complete -c attnrt -n {} -a {}\n", when, quoted(core::joined(words, " ")));
    if (takes_files(command)) text += fmt::format("complete -c attnrt -n {} -F\n", when);
  }
  return text;
}

}  // namespace attnrt::cli::help
