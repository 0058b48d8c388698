// runtime/src/manifest.cpp: what a backend can do, as its manifest says
#include "manifest.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <span>

#include "base/nearest.hpp"

namespace attnrt::core {

namespace {

using yaml::Node;

bool valid_name(std::string_view name) {
  const auto letter = [](char c) { return c >= 'a' && c <= 'z'; };
  const auto legal = [&](char c) { return letter(c) || (c >= '0' && c <= '9') || c == '_'; };
  return !name.empty() && name.size() <= 64 && letter(name.front()) &&
         std::all_of(name.begin(), name.end(), legal);
}

bool has_feature(const Manifest::Entry& entry, std::string_view feature) {
  return std::find(entry.features.begin(), entry.features.end(), feature) != entry.features.end();
}

// Returns how far an entry is from fitting; 0: it fits. Each reason against it counts 2. A dtype
// that does not match counts 3: of two entries with equally many reasons, the one for the problem's
// dtype explains more. Allocates nothing.
size_t distance(const Manifest::Entry& entry, const Problem& problem, uint32_t used,
                std::string_view arch) {
  size_t result = 0;
  for (const Constraint& constraint : entry.constraints) {
    if (!constraint.met(problem, arch)) result += constraint.word->name == "dtype" ? 3 : 2;
  }
  for (const std::string_view feature : all_features()) {
    if ((used & 1U) != 0 && !has_feature(entry, feature)) result += 2;
    used >>= 1U;
  }
  return result;
}

Result<void> check_bound(const Constraint& constraint, const Node& key) {
  const bool only_max = constraint.max && !constraint.min && !constraint.multiple_of;
  if (!constraint.word->bound || only_max) return {};
  return fail(ATTNRT_INVALID_ARGUMENT,
              "{}: {}: found {}, expected {{max: ...}}: it is an upper bound", key.place(),
              key.text, constraint.text());
}

// Notes features that this runtime does not know. They do no harm, because no problem can use them,
// but they may be typos.
void note_features(const Node& list, std::vector<std::string>& notes) {
  for (const Node& feature :
       list.kind == yaml::Kind::list ? std::span(list.items) : std::span(&list, 1)) {
    const auto known = all_features();
    if (std::find(known.begin(), known.end(), feature.text) != known.end()) continue;
    notes.push_back(fmt::format("{}: features: {} is not known to this runtime{}", feature.place(),
                                shown(feature.text), did_you_mean(feature.text, known)));
  }
}

// Adds what an entry means where it does not name a word: values of ABI 1.0, so that an old
// manifest never promises what a later version of the ABI adds.
void add_absent(Constraints& constraints) {
  for (const Word& word : vocabulary()) {
    const auto names = [&word](const Constraint& each) { return each.word == &word; };
    if (word.if_absent.empty() || std::any_of(constraints.begin(), constraints.end(), names))
      continue;
    Constraint constraint;
    constraint.word = &word;
    for (const std::string_view name : word.if_absent)
      constraint.values.emplace_back(std::string(name));
    constraints.push_back(std::move(constraint));
  }
}

// Parses one entry. RETURNS false if it has a key that this runtime does not know; the entry is
// then dropped.
Result<bool> parse_entry(const Node& node, Manifest& manifest) {
  Manifest::Entry entry;
  entry.line = node.line;
  std::vector<std::string> notes;
  if (node.kind != yaml::Kind::map) return yaml::wrong(node, "supports", "a map of conditions");
  for (size_t i = 0; i < node.keys.size(); ++i) {
    const Node& key = node.keys[i];
    if (key.text == "features") {
      if (node.items[i].kind == yaml::Kind::null) continue;
      auto features = yaml::words(node.items[i], "features");
      if (!features) return tl::unexpected(features.error());
      entry.features = *std::move(features);
      note_features(node.items[i], notes);
      continue;
    }
    if (const std::string unknown = unknown_part(key, node.items[i]); !unknown.empty()) {
      manifest.notes.push_back(
          fmt::format("{}: supports: entry dropped: {}", key.place(), unknown));
      return false;
    }
    auto constraint = parse_constraint(key, node.items[i], &notes);
    if (!constraint) return tl::unexpected(constraint.error());
    if (auto checked = check_bound(*constraint, key); !checked)
      return tl::unexpected(checked.error());
    entry.constraints.push_back(*std::move(constraint));
  }
  add_absent(entry.constraints);
  manifest.notes.insert(manifest.notes.end(), notes.begin(), notes.end());
  manifest.entries.push_back(std::move(entry));
  return true;
}

// Checks what decides whether this runtime can read the rest: the major version of the ABI, then
// what the plugin requires of a runtime. This one knows no name of `requires`.
Result<void> parse_conditions(const Node& root, Manifest& manifest) {
  if (const Node* value = root.find("abi")) {
    auto abi = yaml::integer(*value, "abi");
    if (!abi) return tl::unexpected(abi.error());
    if (*abi < 1)
      return yaml::wrong(*value, "abi", "the major version of the plugin ABI, such as 1");
    if (*abi != ATTNRT_ABI_MAJOR) {
      return fail(ATTNRT_UNSUPPORTED, "is built for plugin ABI {}; this runtime has ABI {}", *abi,
                  ATTNRT_ABI_MAJOR);
    }
    manifest.abi = *abi;
  }
  const Node* value = root.find("requires");
  if (value == nullptr || value->kind == yaml::Kind::null) return {};
  const auto names = yaml::words(*value, "requires");
  if (!names) return tl::unexpected(names.error());
  if (names->empty()) return {};
  std::vector<std::string> quoted;
  for (const std::string& name : *names) quoted.push_back(shown(name));
  return fail(ATTNRT_UNSUPPORTED, "needs {}, which this runtime does not know",
              fmt::join(quoted, ", "));
}

Result<void> parse_identity(const Node& key, const Node& value, Manifest& manifest) {
  auto text = yaml::word(value, key.text);
  if (!text) return tl::unexpected(text.error());
  if (key.text == "name") {
    if (!valid_name(*text))
      return yaml::wrong(value, "name", "a name of a-z, 0-9 and _ that begins with a letter");
    manifest.name = *text;
  } else if (key.text == "version") {
    auto version = parse_version(*text);
    if (!version)
      return fail(ATTNRT_INVALID_ARGUMENT, "{}: version: {}", value.place(),
                  version.error().message);
    manifest.version = *std::move(version);
    manifest.version_text = *text;
  } else {
    manifest.summary = *text;
  }
  return {};
}

Result<void> parse_lists(const Node& key, const Node& value, Manifest& manifest) {
  if (key.text == "supports") {
    if (value.kind != yaml::Kind::list || value.items.empty())
      return yaml::wrong(value, "supports", "a list of entries");
    for (const Node& entry : value.items) {
      if (auto parsed = parse_entry(entry, manifest); !parsed)
        return tl::unexpected(parsed.error());
    }
    return {};
  }
  if (key.text == "archs" && value.kind == yaml::Kind::null) return {};
  auto list = yaml::words(value, key.text);
  if (!list) return tl::unexpected(list.error());
  if (key.text == "archs") {
    manifest.archs = *std::move(list);
    return {};
  }
  const Word& device = *find_word("device");
  for (const std::string& name : *list) {
    auto known = parse_value(device, name);
    if (!known)
      manifest.notes.push_back(
          fmt::format("{}: devices: {} is not known to this runtime", value.place(), shown(name)));
    else
      manifest.devices.push_back(name);
  }
  return {};
}

Result<void> parse_unloadable(const Node& value, Manifest& manifest) {
  const auto flag = yaml::boolean(value, "unloadable");
  if (!flag) return tl::unexpected(flag.error());
  manifest.unloadable = *flag;
  return {};
}

}  // namespace

Result<Manifest> parse_manifest(std::string_view text, const std::string& file) {
  auto document = yaml::parse(text, file);
  if (!document) return tl::unexpected(document.error());
  const Node& root = document->root;
  if (root.kind != yaml::Kind::map) return yaml::wrong(root, "manifest", "a map");
  constexpr std::array<std::string_view, 9> keys{"name",     "version",  "abi",
                                                 "summary",  "devices",  "archs",
                                                 "supports", "requires", "unloadable"};
  Manifest manifest;
  if (auto readable = parse_conditions(root, manifest); !readable)
    return tl::unexpected(readable.error());
  std::vector<std::string_view> unknown;
  for (size_t i = 0; i < root.keys.size(); ++i) {
    const Node& key = root.keys[i];
    const auto is = [&](std::initializer_list<std::string_view> names) {
      return std::find(names.begin(), names.end(), key.text) != names.end();
    };
    if (is({"abi", "requires"})) continue;  // parse_conditions has read them
    Result<void> parsed;
    if (key.text == "unloadable") {
      parsed = parse_unloadable(root.items[i], manifest);
    } else if (is({"name", "version", "summary"})) {
      parsed = parse_identity(key, root.items[i], manifest);
    } else if (is({"devices", "archs", "supports"})) {
      parsed = parse_lists(key, root.items[i], manifest);
    } else {
      unknown.push_back(key.text);
      manifest.notes.push_back(fmt::format("{}: {}: unknown key, ignored{}", key.place(),
                                           shown(key.text), did_you_mean(key.text, keys)));
    }
    if (!parsed) return tl::unexpected(parsed.error());
  }
  for (const std::string_view needed : {"name", "version", "abi", "devices", "supports"}) {
    if (root.find(needed) != nullptr) continue;
    const std::string_view found = nearest(needed, unknown);
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: {}: missing{}", file, needed,
                found.empty() ? "" : fmt::format("; found {}, which looks like it", shown(found)));
  }
  return manifest;
}

std::string Manifest::serves_nothing() const {
  if (entries.empty()) return "its manifest has no entry that this runtime knows";
  if (devices.empty()) return "its manifest names no device that this runtime knows";
  const auto hopeless = [](const Constraint& constraint) { return constraint.can_never_match(); };
  const bool none = std::all_of(entries.begin(), entries.end(), [&](const Entry& entry) {
    return std::any_of(entry.constraints.begin(), entry.constraints.end(), hopeless);
  });
  if (none) return "its manifest has no entry that any problem of this runtime could fit";
  return "";
}

std::vector<std::string> Manifest::refusals(const Problem& problem, std::string_view arch) const {
  const auto matches = [&](const std::string& pattern) { return arch_matches(pattern, arch); };
  const bool arch_fits =
      archs.empty() || arch.empty() || std::any_of(archs.begin(), archs.end(), matches);
  const uint32_t used = feature_bits(problem);
  const Entry* nearest_miss = nullptr;
  size_t least = SIZE_MAX;
  for (const Entry& entry : entries) {
    const size_t apart = distance(entry, problem, used, arch);
    if (apart < least) nearest_miss = &entry, least = apart;
    if (apart == 0) break;
  }
  std::vector<std::string> reasons;
  if (arch_fits && least == 0) return reasons;
  if (!arch_fits) {
    reasons.push_back(archs.size() == 1
                          ? fmt::format("arch {} is not {}", arch, archs.front())
                          : fmt::format("arch {} is not in {{{}}}", arch, fmt::join(archs, ", ")));
  }
  if (nearest_miss == nullptr) {
    reasons.push_back(serves_nothing());
    return reasons;
  }
  for (std::string& reason : core::refusals(nearest_miss->constraints, problem, arch))
    reasons.push_back(std::move(reason));
  for (size_t i = 0; i < all_features().size(); ++i) {
    const std::string_view feature = all_features()[i];
    if ((used >> i & 1U) == 0 || has_feature(*nearest_miss, feature)) continue;
    reasons.push_back(fmt::format("uses {}, which it does not support", feature));
  }
  return reasons;
}

}  // namespace attnrt::core
