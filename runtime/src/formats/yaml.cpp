// runtime/src/formats/yaml.cpp: reads YAML into a tree of nodes; the only user of yaml-cpp
#include "formats/yaml.hpp"

#include <yaml-cpp/anchor.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <mutex>
#include <sstream>
#include <unordered_map>
#include <unordered_set>

#include "base/file.hpp"
#include "base/fork.hpp"
#include "base/nearest.hpp"

namespace attnrt::core::yaml {

namespace {

// Limits that no real policy or manifest reaches. They bound the time and memory that a hostile
// text, such as nested aliases, can cost.
constexpr size_t maximum_text_bytes = size_t{1} << 20;
constexpr size_t maximum_depth = 64;  // of lists and maps in each other
constexpr size_t maximum_nodes = 100000;
constexpr size_t maximum_tree_bytes = size_t{4} << 20;  // of all scalars

struct Size {
  size_t nodes = 0, bytes = 0, depth = 0;
};

Size size_of(const Node& node) {
  Size size{1, node.text.size(), 1};
  for (const std::vector<Node>* children : {&node.items, &node.keys}) {
    for (const Node& child : *children) {
      const Size inner = size_of(child);
      size.nodes += inner.nodes;
      size.bytes += inner.bytes;
      size.depth = std::max(size.depth, inner.depth + 1);
    }
  }
  return size;
}

// Builds nodes from the events of yaml-cpp's parser. yaml-cpp's own tree is not used, because it
// forgets the line of some nodes and hides duplicate keys. An error is thrown as yaml-cpp's own
// exception, because it passes through yaml-cpp's parser; parse() catches it.
class Builder final : public YAML::EventHandler {
 public:
  explicit Builder(const std::string* file) : file_(file) {}

  Node root;
  int documents = 0;

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents > 1) refuse(mark, "found a second document, expected one");
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add(make(mark, Kind::null), mark, anchor);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    Node node = make(mark, Kind::scalar);
    node.text = value;
    // yaml-cpp's tag is "!" for a quoted scalar, "?" for a plain one, else the tag as written.
    node.quoted = tag == "!" || tag == "tag:yaml.org,2002:str";
    if (!node.quoted) check_tag(mark, tag);
    add(std::move(node), mark, anchor);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) refuse(mark, "found an alias inside of its own anchor");
    if (open_.size() + size_of(found->second).depth > maximum_depth) refuse_depth(mark);
    add(found->second, mark, 0);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    start(mark, tag, anchor, Kind::list);
  }
  void OnSequenceEnd() override { end(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    start(mark, tag, anchor, Kind::map);
  }
  void OnMapEnd() override { end(); }

 private:
  // A list or map that has not ended yet.
  struct Open {
    Node node;
    YAML::Mark mark;
    YAML::anchor_t anchor;
    std::unordered_set<std::string> keys;
  };

  [[noreturn]] static void refuse(const YAML::Mark& mark, const std::string& text) {
    throw YAML::ParserException(mark, text);
  }
  [[noreturn]] static void refuse_depth(const YAML::Mark& mark) {
    refuse(mark,
           fmt::format("found more than {} levels, expected at most that many", maximum_depth));
  }

  static void check_tag(const YAML::Mark& mark, const std::string& tag) {
    if (tag != "?" && tag != "!" && !tag.empty())
      refuse(mark, fmt::format("found the tag {}, expected none", shown(tag)));
  }

  Node make(const YAML::Mark& mark, Kind kind) {
    Node node;
    node.kind = kind;
    node.line = std::max(mark.line, 0) + 1;  // yaml-cpp counts from 0, and -1 is its null mark
    node.column = std::max(mark.column, 0) + 1;
    node.file = file_;
    return node;
  }

  // Counts a node, with the copies that aliases make, against the limits.
  void charge(const YAML::Mark& mark, const Node& node) {
    const Size size = size_of(node);
    nodes_ += size.nodes;
    bytes_ += size.bytes;
    if (nodes_ > maximum_nodes || bytes_ > maximum_tree_bytes) {
      refuse(mark, fmt::format("found over {} nodes or {} bytes, aliases included, expected less",
                               maximum_nodes, maximum_tree_bytes));
    }
  }

  void start(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, Kind kind) {
    check_tag(mark, tag);
    if (open_.size() >= maximum_depth) refuse_depth(mark);
    if (!open_.empty() && expects_key(open_.back().node))
      refuse_key(mark, kind == Kind::map ? "a map" : "a list");
    open_.push_back({make(mark, kind), mark, anchor, {}});
    charge(mark, open_.back().node);
  }

  void end() {
    Open done = std::move(open_.back());
    open_.pop_back();
    if (done.anchor != 0) {
      charge(done.mark, done.node);
      anchors_[done.anchor] = done.node;
    }
    attach(std::move(done.node), done.mark);
  }

  void add(Node node, const YAML::Mark& mark, YAML::anchor_t anchor) {
    charge(mark, node);
    if (anchor != 0) anchors_[anchor] = node;
    attach(std::move(node), mark);
  }

  static bool expects_key(const Node& node) {
    return node.kind == Kind::map && node.keys.size() == node.items.size();
  }
  [[noreturn]] static void refuse_key(const YAML::Mark& mark, const std::string& found) {
    refuse(mark, fmt::format("found {} as a key, expected a word", found));
  }

  void attach(Node node, const YAML::Mark& mark) {
    if (open_.empty()) {
      root = std::move(node);
      return;
    }
    Open& parent = open_.back();
    if (!expects_key(parent.node)) {
      if (node.kind == Kind::null && parent.node.kind == Kind::map &&
          node.line != parent.node.keys.back().line) {
        // For a value that is not written, yaml-cpp gives the place of whatever comes next. The
        // place of its key is the better one.
        node.line = parent.node.keys.back().line;
        node.column = parent.node.keys.back().column;
      }
      parent.node.items.push_back(std::move(node));
      return;
    }
    if (node.kind != Kind::scalar) refuse_key(mark, node.found());
    if (!parent.keys.insert(node.text).second) {
      const auto same = [&](const Node& key) { return key.text == node.text; };
      const auto first = std::find_if(parent.node.keys.begin(), parent.node.keys.end(), same);
      refuse(mark, fmt::format("found {} twice, expected once; the first is in line {}",
                               shown(node.text), first->line));
    }
    parent.node.keys.push_back(std::move(node));
  }

  const std::string* file_;
  std::vector<Open> open_;
  std::unordered_map<YAML::anchor_t, Node> anchors_;
  size_t nodes_ = 0, bytes_ = 0;
};

// Returns the bytes of the UTF-8 character at the start of text; 0 if there is none.
size_t character_bytes(std::string_view text) {
  const auto byte = [&](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  const auto continues = [&](size_t i) { return (byte(i) & 0xC0U) == 0x80U; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return continues(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const bool overlong = first == 0xE0 && byte(1) < 0xA0,
               surrogate = first == 0xED && byte(1) > 0x9F;
    return continues(1) && continues(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const bool overlong = first == 0xF0 && byte(1) < 0x90, beyond = first == 0xF4 && byte(1) > 0x8F;
    return continues(1) && continues(2) && continues(3) && !overlong && !beyond ? 4 : 0;
  }
  return 0;
}

// Refuses a text that is too long, or has bytes that yaml-cpp would misread: it takes byte 4 for
// the end of the text, guesses UTF-16, and replaces bytes that it cannot read.
Result<void> check_bytes(std::string_view text, const std::string& file) {
  if (text.size() > maximum_text_bytes) {
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: found more than {} bytes, expected at most that many",
                file, maximum_text_bytes);
  }
  int line = 1, column = 1;
  while (!text.empty()) {
    const auto byte = static_cast<unsigned char>(text.front());
    const size_t length = character_bytes(text);
    if (length == 0 || byte == 0x7F ||
        (byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r')) {
      return fail(ATTNRT_INVALID_ARGUMENT, "{}:{}:{}: found byte 0x{:02x}, expected UTF-8 text",
                  file, line, column, byte);
    }
    ++column;
    if (byte == '\n') ++line, column = 1;
    text.remove_prefix(length);
  }
  return {};
}

// Makes yaml-cpp's own words one line: they quote single bytes of the text, which may be control
// characters or a part of a UTF-8 character.
std::string escaped(std::string_view message) {
  std::string line;
  for (const char letter : message) {
    const auto byte = static_cast<unsigned char>(letter);
    line += byte >= 0x20 && byte < 0x7F ? std::string(1, letter) : fmt::format("\\x{:02x}", byte);
  }
  return line;
}

// Held while yaml-cpp works, so that a fork waits until it has finished. Its static variables are
// initialised when a text first needs them. A child that was forked in the middle of that would
// wait for ever when it needs them, too.
HeldMutex& yaml_cpp_mutex() {
  static constinit std::atomic<HeldMutex*> mutex = nullptr;
  return only(mutex);
}

// Returns a place from 1 on. line, column: from 0 on, as yaml-cpp gives them. It counts characters
// that it has looked ahead at, so the column is at most one behind the line's last byte.
std::pair<int, int> place_in(std::string_view text, int line, int column) {
  for (int n = 0; n < line; ++n) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  const auto length = static_cast<int>(std::min(text.find('\n'), text.size()));
  return {std::max(line, 0) + 1, std::clamp(column, 0, length) + 1};
}

}  // namespace

const Node* Node::find(std::string_view key) const {
  for (size_t i = 0; i < keys.size(); ++i) {
    if (keys[i].text == key) return &items[i];
  }
  return nullptr;
}

std::string Node::place() const {
  return fmt::format("{}:{}:{}", file != nullptr ? *file : "?", line, column);
}

std::string Node::found() const {
  switch (kind) {
    case Kind::null: return "nothing";
    case Kind::scalar:
      return quoted && !text.empty() ? fmt::format("\"{}\"", shown(text)) : shown(text);
    case Kind::list: return items.empty() ? "an empty list" : "a list";
    case Kind::map: return "a map";
  }
  return "nothing";
}

Result<Document> parse(std::string_view text, std::string file) {
  Document document{std::make_unique<std::string>(std::move(file)), {}};
  const std::string& name = *document.file;
  if (auto checked = check_bytes(text, name); !checked) return tl::unexpected(checked.error());
  Builder builder(document.file.get());
  try {
    std::istringstream stream{std::string(text)};
    const std::lock_guard lock(yaml_cpp_mutex());
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& exception) {
    const YAML::Mark& mark = exception.mark;
    const std::string reason = exception.msg.starts_with("found ")
                                   ? exception.msg
                                   : "this is not YAML: " + escaped(exception.msg);
    const auto [line, column] = place_in(text, mark.line, mark.column);
    return fail(ATTNRT_INVALID_ARGUMENT, "{}:{}:{}: {}", name, line, column, reason);
  } catch (const std::bad_alloc&) {
    throw;  // says nothing about the text
  } catch (const std::exception& exception) {
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: not readable as YAML: {}", name, exception.what());
  }
  document.root = std::move(builder.root);
  if (builder.documents == 0) document.root.line = document.root.column = 1;
  document.root.file = document.file.get();
  return document;
}

Result<std::string> read_text(const std::filesystem::path& file) {
  errno = 0;
  std::ifstream stream(file, std::ios::binary);
  std::string text(maximum_text_bytes + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!stream.is_open() || stream.bad()) {
    const int error = errno != 0 ? errno : EIO;
    return fail(error == ENOMEM         ? ATTNRT_OUT_OF_MEMORY
                : could_not_look(error) ? ATTNRT_INTERNAL
                                        : ATTNRT_INVALID_ARGUMENT,
                "cannot be read: {}", std::strerror(error));
  }
  text.resize(static_cast<size_t>(stream.gcount()));
  return text;
}

tl::unexpected<Error> wrong(const Node& node, std::string_view what, std::string_view expected) {
  return fail(ATTNRT_INVALID_ARGUMENT, "{}: {}: found {}, expected {}", node.place(), what,
              node.found(), expected);
}

Result<int64_t> integer(const Node& node, std::string_view what) {
  const std::string_view text = node.text;
  const std::string_view digits = text.starts_with('-') ? text.substr(1) : text;
  const bool octal = digits.size() > 1 && digits.front() == '0';
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  if (node.kind != Kind::scalar || node.quoted || octal || !whole)
    return wrong(node, what, "a whole number");
  return value;
}

Result<double> real(const Node& node, std::string_view what) {
  const std::string_view text = node.text;
  const std::string_view digits = text.starts_with('-') ? text.substr(1) : text;
  const bool starts_right = !digits.empty() && (digits.front() == '.' ||
                                                (digits.front() >= '0' && digits.front() <= '9'));
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole =
      error == std::errc() && end == text.data() + text.size() && std::isfinite(value);
  if (node.kind != Kind::scalar || node.quoted || !starts_right || !whole)
    return wrong(node, what, "a finite number");
  return value;
}

Result<bool> boolean(const Node& node, std::string_view what) {
  const bool plain = node.kind == Kind::scalar && !node.quoted;
  if (plain && node.text == "true") return true;
  if (plain && node.text == "false") return false;
  return wrong(node, what, "true or false");
}

Result<std::string> word(const Node& node, std::string_view what) {
  if (node.kind != Kind::scalar || node.text.empty()) return wrong(node, what, "a word");
  return node.text;
}

Result<std::vector<std::string>> words(const Node& node, std::string_view what) {
  std::vector<std::string> result;
  if (node.kind == Kind::scalar && !node.text.empty()) return std::vector<std::string>{node.text};
  if (node.kind != Kind::list) return wrong(node, what, "a list of words");
  for (const Node& item : node.items) {
    auto text = word(item, what);
    if (!text) return tl::unexpected(text.error());
    result.push_back(*std::move(text));
  }
  return result;
}

void only_keys(const Node& map, std::initializer_list<std::string_view> known,
               std::string_view where, Errors& errors) {
  if (map.kind == Kind::null) return;
  if (map.kind != Kind::map)
    errors.push_back(wrong(map, where.empty() ? "the document" : where, "a map").value());
  for (const Node& key : map.keys) {
    if (std::find(known.begin(), known.end(), key.text) != known.end()) continue;
    errors.push_back(
        {ATTNRT_INVALID_ARGUMENT,
         fmt::format("{}: {}{}{}: unknown key{}", key.place(), where, where.empty() ? "" : ".",
                     shown(key.text), expected_one_of(key.text, {known.begin(), known.size()}))});
  }
}

}  // namespace attnrt::core::yaml
