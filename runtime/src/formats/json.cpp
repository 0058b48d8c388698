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

// Appends an element to a list that begins with its bracket, on a line of its own.
void append_element(std::string& text, const std::string& element) {
  text += text.size() == 1 ? "\n  " : ",\n  ";
  for (const char letter : element) {
    text += letter;
    if (letter == '\n') text += "  ";  // one of the layout's, since strings have none
  }
}

void append_end(std::string& text, char bracket) {
  if (text.size() > 1) text += '\n';
  text += bracket;
}

}  // namespace

Json::Json(double number) : text_(scalar(number)) {}
Json::Json(std::string_view string) : text_(scalar(string)) {}

Json::Json(const std::vector<Json>& items) : text_("[") {
  for (const Json& item : items) append_element(text_, item.text_);
  append_end(text_, ']');
}

Json::Json(std::vector<Member> members) : text_("{") {
  std::sort(members.begin(), members.end(),
            [](const Member& a, const Member& b) { return a.key < b.key; });
  for (const Member& member : members)
    append_element(text_, scalar(member.key) + ": " + member.value.text_);
  append_end(text_, '}');
}

std::string Json::line() const {
  std::string line;
  line.reserve(text_.size());
  bool indents = false;
  for (const char letter : text_) {  // strings have no raw line ends
    if (letter == '\n') {
      if (!line.empty() && line.back() == ',') line += ' ';
      indents = true;
    } else if (letter != ' ' || !indents) {
      line += letter;
      indents = false;
    }
  }
  return line;
}

}  // namespace attnrt::core
