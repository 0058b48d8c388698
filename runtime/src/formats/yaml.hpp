// runtime/src/formats/yaml.hpp: reads YAML into a tree of nodes; the only user of yaml-cpp
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
  std::string text;                   // the text of a scalar
  bool quoted = false;                // "1" is a string, 1 is a number
  std::vector<Node> items;            // the items of a list, or the values of a map
  std::vector<Node> keys;             // the keys of a map, all scalars; keys[i] belongs to items[i]
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

// Parses a text; an empty one is a null document. Errors: INVALID_ARGUMENT, "file:line:column:
// found ..., expected ...", for
//   - malformed text: bytes that are not UTF-8, control characters, tags other than !!str
//   - duplicate keys, keys that are not scalars, several documents
//   - nesting over 64 levels, a text over 1 MiB
//   - a document over 100000 nodes or 4 MiB, aliases included
Result<Document> parse(std::string_view text, std::string file);

// Reads a file, up to one byte more than parse() accepts. The error says why it cannot be read; the
// caller names the file.
Result<std::string> read_text(const std::filesystem::path& file);

// Returns the error for a wrong type or value: "policy.yaml:3:5: threads: found many, expected a
// whole number".
tl::unexpected<Error> wrong(const Node& node, std::string_view what, std::string_view expected);

// Each reads a node as one type. Errors are those of wrong(). integer is decimal only: 010 is an
// error, not 8. words takes a list of scalars, or one scalar.
Result<int64_t> integer(const Node& node, std::string_view what);
Result<double> real(const Node& node, std::string_view what);
Result<bool> boolean(const Node& node, std::string_view what);  // true, false
Result<std::string> word(const Node& node, std::string_view what);
Result<std::vector<std::string>> words(const Node& node, std::string_view what);

// Checks that a node is a map with known keys only; null counts as an empty map. Adds an error for
// each other key, with its place and the nearest known key. where: the map's own name in messages,
// "" at the top.
void only_keys(const Node& map, std::initializer_list<std::string_view> known,
               std::string_view where, Errors& errors);

}  // namespace attnrt::core::yaml
