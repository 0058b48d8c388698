// runtime/src/formats/json.cpp: writes JSON
#include "formats/json.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace attnrt::core {
namespace {

// Writes a value without elements. Destroying that allocates nothing.
std::string scalar(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// Writes a string. Most are printed as they are, which costs a tenth of what the library costs.
std::string quoted(std::string_view text) {
  const bool is_plain = std::all_of(text.begin(), text.end(), [](char letter) {
    return letter >= ' ' && letter < '\x7F' && letter != '"' && letter != '\\';
  });
  if (!is_plain) return scalar(text);
  std::string result;
  result.reserve(text.size() + 2);
  return result.append(1, '"').append(text).append(1, '"');
}

// Appends an element to a list that begins with its bracket, on a line of its own.
void append_element(std::string& text, const std::string& element) {
  text += text.size() == 1 ? "\n  " : ",\n  ";
  size_t at = 0;
  for (size_t end = 0; (end = element.find('\n', at)) != std::string::npos; at = end + 1) {
    text.append(element, at, end + 1 - at);
    text += "  ";  // the line ends are the layout's, since strings have none
  }
  text.append(element, at);
}

void append_end(std::string& text, char bracket) {
  if (text.size() > 1) text += '\n';
  text += bracket;
}

}  // namespace

Json::Json(double number) : text_(scalar(number)) {}
Json::Json(std::string_view string) : text_(quoted(string)) {}

Json::Json(const std::vector<Json>& items) : text_("[") {
  for (const Json& item : items) append_element(text_, item.text_);
  append_end(text_, ']');
}

Json::Json(std::vector<Member> members) : text_("{") {
  std::sort(members.begin(), members.end(),
            [](const Member& a, const Member& b) { return a.key < b.key; });
  for (const Member& member : members)
    append_element(text_, quoted(member.key) + ": " + member.value.text_);
  append_end(text_, '}');
}

std::string Json::line() const {
  std::string line;
  line.reserve(text_.size());
  size_t at = 0;
  for (size_t end = 0; (end = text_.find('\n', at)) != std::string::npos;) {
    line.append(text_, at, end - at);
    if (line.back() == ',') line += ' ';
    at = text_.find_first_not_of(' ', end + 1);  // a bracket or an element, so there is one
  }
  return line.append(text_, at);
}

}  // namespace attnrt::core
