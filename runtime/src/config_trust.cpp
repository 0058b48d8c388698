// runtime/src/config_trust.cpp: the policy's `trust` and `backends.NAME.sha256` as a TrustPolicy
#include "config_trust.hpp"

#include <algorithm>
#include <span>

namespace attnrt::core {
namespace {

using yaml::Kind;
using yaml::Node;

constexpr size_t kHashDigits = 64;

// The items of a list, or one item that stands for a list of one.
std::span<const Node> items_of(const Node& list) {
  return list.kind == Kind::scalar ? std::span(&list, 1) : std::span(list.items);
}

void read_keys(const Node& list, TrustPolicy& trust, Errors& errors) {
  constexpr const char* kWhat = "trust.keys";
  if (list.kind != Kind::list && list.kind != Kind::scalar)
    return errors.push_back(yaml::wrong(list, kWhat, "a list of public keys").value());
  std::vector<minisign::PublicKey> keys;
  for (const Node& node : items_of(list)) {
    const auto text = yaml::word(node, kWhat);
    if (!text) {
      errors.push_back(text.error());
      continue;
    }
    const auto key = minisign::parse_public_key(*text);
    if (!key) {
      errors.push_back(
          {key.error().code, fmt::format("{}: {}: {}", node.place(), kWhat, key.error().message)});
    } else if (std::find(keys.begin(), keys.end(), *key) != keys.end()) {
      errors.push_back(
          {ATTNRT_INVALID_ARGUMENT, fmt::format("{}: {}: found the key {} twice, expected once",
                                                node.place(), kWhat, minisign::id_text(key->id))});
    } else {
      keys.push_back(*key);
    }
  }
  trust.keys = {std::move(keys), list.place()};
}

// Nothing (null) is required, where there are keys; the word is an error where there are none.
void read_signatures(const Node& node, TrustPolicy& trust, Errors& errors) {
  const bool known =
      node.kind == Kind::null ||
      (node.kind == Kind::scalar && (node.text == "required" || node.text == "optional"));
  if (!known) {
    return errors.push_back(yaml::wrong(node, "trust.signatures", "required or optional").value());
  }
  trust.signatures_required = {node.text != "optional", node.place()};
  if (node.text == "required" && trust.keys.value.empty()) {
    errors.push_back(
        {ATTNRT_INVALID_ARGUMENT,
         fmt::format("{}: trust.signatures: found required, but trust.keys names no key; expected "
                     "one there",
                     node.place())});
  }
}

// The reason is for those who read `attnrt list` later.
void read_allow(const Node& map, TrustPolicy& trust, Errors& errors) {
  yaml::only_keys(map, {kForeignOwner, kGroupWritable, kWorldWritable, kSetId, kRelativePath},
                  "trust.allow", errors);
  for (size_t i = 0; i < map.keys.size(); ++i) {
    const Node& reason = map.items[i];
    const std::string& check = map.keys[i].text;
    const auto is_switch = yaml::boolean(reason, "").has_value();
    const bool has_letter = reason.text.find_first_not_of(" \t\n") != std::string::npos;
    if (reason.kind != Kind::scalar || is_switch || !has_letter) {
      errors.push_back(yaml::wrong(reason, "trust.allow." + shown(check),
                                   "the reason, as text: \"build machine of one team\"")
                           .value());
    }
    trust.allow[check] = {reason.text, reason.place()};
  }
}

}  // namespace

void read_trust(const Node& map, TrustPolicy& trust, Errors& errors) {
  yaml::only_keys(map, {"keys", "signatures", "allow"}, "trust", errors);
  const size_t errors_before = errors.size();
  if (const Node* keys = map.find("keys")) read_keys(*keys, trust, errors);
  const bool keys_are_known = errors.size() == errors_before;
  const Node* signatures = map.find("signatures");
  if (signatures != nullptr && keys_are_known) read_signatures(*signatures, trust, errors);
  if (const Node* allow = map.find("allow")) read_allow(*allow, trust, errors);
}

std::vector<std::string> read_hashes(const Node& list, const std::string& what, Errors& errors) {
  constexpr const char* kExpected = "a list of SHA-256 hashes, at least one";
  std::vector<std::string> hashes;
  const auto items = items_of(list);
  if ((list.kind != Kind::list && list.kind != Kind::scalar) || items.empty())
    errors.push_back(yaml::wrong(list, what, kExpected).value());
  for (const Node& node : items) {
    std::string hash = node.text;
    std::transform(hash.begin(), hash.end(), hash.begin(),
                   [](char c) { return c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c; });
    const bool hex = hash.find_first_not_of("0123456789abcdef") == std::string::npos;
    if (node.kind != Kind::scalar || !hex || hash.size() != kHashDigits) {
      errors.push_back(
          yaml::wrong(node, what, "a SHA-256 hash: 64 hexadecimal digits, as sha256sum prints them")
              .value());
    } else {
      hashes.push_back(std::move(hash));
    }
  }
  return hashes;
}

}  // namespace attnrt::core
