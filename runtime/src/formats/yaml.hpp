// runtime/src/formats/yaml.hpp: YAML text into a tree in which every node knows its place; the only user of yaml-cpp
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace attnrt::core::yaml {

enum class Kind { null, scalar, list, map };

struct Node {
  Kind kind = Kind::null;
  std::string text;                   // of a scalar
  bool quoted = false;                // "1" is a string, 1 is a number
  std::vector<Node> items;            // of a list; of a map: its values
  std::vector<Node> keys;             // of a map: scalars, keys[i] names items[i]
  int line = 0, column = 0;           // 1-based
  const std::string* file = nullptr;  // owned by the Document

  const Node* find(std::string_view key) const;  // nullptr where absent
  std::string place() const;                     // "policy.yaml:3:5"
  std::string found() const;  // for messages: nothing, 010, "text", a list, a map
};

struct Document {
  std::unique_ptr<std::string> file;  // stable address for Node::file
  Node root;
};

// Malformed text (also bytes that are no UTF-8, control characters, tags other than !!str), duplicate keys, keys that
// are no scalars, several documents, nesting over 64 levels, texts over 1 MiB and documents over 100000 nodes or 4 MiB,
// with what anchors and aliases repeat, are errors: "file:line:column: found, expected". An empty text is a null
// document.
Result<Document> parse(std::string_view text, std::string file);

// A file's text, as far as parse() takes it. The error says why it cannot be read, and does not name the file.
Result<std::string> read_text(const std::filesystem::path& file);

// "policy.yaml:3:5: threads: found many, expected a whole number"; the one wording of a wrong type or value.
tl::unexpected<Error> wrong(const Node& node, std::string_view what, std::string_view expected);

// Typed reads; each error begins with the node's place and says what was found and what was expected.
Result<int64_t> integer(const Node& node,
                        std::string_view what);  // decimal only: 010 is an error, not 8
Result<double> real(const Node& node, std::string_view what);
Result<bool> boolean(const Node& node, std::string_view what);  // true, false
Result<std::string> word(const Node& node, std::string_view what);
Result<std::vector<std::string>> words(const Node& node,
                                       std::string_view what);  // a list of scalars, or one scalar

// The node is a map, or null (which is an empty map), and has no key but these; otherwise an error for each other key,
// with its place and the nearest known one. where: the map's own name in messages, "" at the top.
void only_keys(const Node& map, std::initializer_list<std::string_view> known,
               std::string_view where, Errors& errors);

}  // namespace attnrt::core::yaml
