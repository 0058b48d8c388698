// runtime/src/formats/json.hpp: writes JSON
#pragma once

#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace attnrt::core {

// One JSON value, as indented text. Its constructors throw std::bad_alloc, and nothing else of it
// does. (The destructor of a nlohmann::json with elements allocates, and ends the process if it
// cannot.)
class Json {
 public:
  struct Member;
  Json(std::nullptr_t) : text_("null") {}
  Json(bool flag) : text_(flag ? "true" : "false") {}
  Json(std::integral auto number) : text_(std::to_string(number)) {}
  Json(double number);            // null if it is not finite
  Json(std::string_view string);  // any bytes; those that are not UTF-8 are replaced
  Json(const std::string& string) : Json(std::string_view(string)) {}
  Json(const char* string) : Json(std::string_view(string)) {}
  template <class Item>
  Json(const std::optional<Item>& item) : Json(item ? Json(*item) : Json(nullptr)) {}
  Json(const std::vector<Json>& items);
  template <class Item>
  Json(const std::vector<Item>& items) : Json(std::vector<Json>(items.begin(), items.end())) {}
  Json(std::vector<Member> members);  // an object; its keys are sorted
  Json(std::initializer_list<Member> members);

  const std::string& text() const { return text_; }
  std::string line() const;  // the same value in one line

 private:
  std::string text_;
};

struct Json::Member {
  std::string_view key;
  Json value;
};

inline Json::Json(std::initializer_list<Member> members) : Json(std::vector<Member>(members)) {}

}  // namespace attnrt::core
