// tests/fuzz/yaml_fuzz.cpp: reads YAML into a tree, prints the tree and reads it again
#include "formats/yaml.hpp"
#include "fuzz.hpp"

namespace {

using attnrt::core::yaml::Kind;
using attnrt::core::yaml::Node;
using attnrt::fuzz::require;

struct Sizes {
  size_t nodes = 0, bytes = 0, depth = 0;
};

// Checks a node and those below, and adds them up.
void check(const Node& node, size_t depth, Sizes& sizes) {
  ++sizes.nodes;
  sizes.bytes += node.text.size();
  sizes.depth = std::max(sizes.depth, depth);
  require(node.line >= 1 && node.column >= 1, "a node has a place");
  require(node.kind == Kind::scalar || node.text.empty(), "only a scalar has a text");
  require(node.keys.size() == (node.kind == Kind::map ? node.items.size() : 0),
          "a map has as many keys as values, and nothing else has keys");
  require(node.items.empty() || node.kind == Kind::list || node.kind == Kind::map,
          "only lists and maps have items");
  require(attnrt::fuzz::is_one_line(node.found()) || !node.text.empty(),
          "what was found is one line");
  for (size_t i = 0; i < node.keys.size(); ++i) {
    require(node.keys[i].kind == Kind::scalar, "a key is a scalar");
    require(node.find(node.keys[i].text) == &node.items[i], "no key stands twice");
    check(node.keys[i], depth, sizes);
  }
  for (const Node& item : node.items) check(item, depth + 1, sizes);
}

std::string printed_text(std::string_view text) {
  std::string quoted = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') quoted += '\\';
    if (letter == '\n') {
      quoted += "\\n";
    } else if (letter == '\t') {
      quoted += "\\t";
    } else if (letter == '\r') {
      quoted += "\\r";
    } else {
      quoted += letter;
    }
  }
  return quoted + "\"";
}

std::string printed(const Node& node) {
  if (node.kind == Kind::null) return "~";
  if (node.kind == Kind::scalar) return printed_text(node.text);
  const bool map = node.kind == Kind::map;
  std::string text = map ? "{" : "[";
  for (size_t i = 0; i < node.items.size(); ++i) {
    if (i > 0) text += ", ";
    if (map) text += printed_text(node.keys[i].text) + ": ";
    text += printed(node.items[i]);
  }
  return text + (map ? "}" : "]");
}

// yaml-cpp writes and reads other control characters apart, and \N gives a byte that is no UTF-8.
bool printable(const Node& node) {
  return std::all_of(node.text.begin(), node.text.end(),
                     [](char c) { return (c >= 0x20 && c < 0x7F) || c == '\n' || c == '\t'; }) &&
         std::all_of(node.keys.begin(), node.keys.end(), printable) &&
         std::all_of(node.items.begin(), node.items.end(), printable);
}

}  // namespace

void fuzz_yaml(std::string_view input) {
  using namespace attnrt::core;
  const auto document = yaml::parse(input, "a.yaml");
  if (!document) {
    require(document.error().code == ATTNRT_INVALID_ARGUMENT, "an error is INVALID_ARGUMENT");
    attnrt::fuzz::require_place(document.error().message, "a.yaml", input);
    return;
  }
  Sizes sizes;
  check(document->root, 1, sizes);
  require(sizes.nodes <= 100'001 && sizes.bytes <= (4 << 20) && sizes.depth <= 65,
          "a tree is within the limits");
  // A key of a flow map must stand within 1024 characters.
  if (input.size() > 500 || !printable(document->root)) return;
  const std::string text = printed(document->root);
  const auto again = yaml::parse(text, "b.yaml");
  require(again.has_value(),
          fmt::format("a printed tree is YAML: {}: {}", text, again ? "" : again.error().message));
  require(printed(again->root) == text, "a printed tree is read as the same tree");
}
