// runtime/src/formats/minisign.cpp: reads and verifies signatures; the only user of libsodium
#include "formats/minisign.hpp"

#include <fmt/ranges.h>
#include <sodium.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <optional>
#include <span>

#include "base/fork.hpp"

namespace attnrt::core::minisign {
namespace {

constexpr std::string_view kUntrusted = "untrusted comment: ", kTrusted = "trusted comment: ";
constexpr std::string_view kPrehashed = "ED", kOfTheFile = "Ed";  // the two kinds of signature
constexpr size_t kKind = 2;                                       // bytes

using Hash = std::array<uint8_t, crypto_generichash_blake2b_BYTES_MAX>;
static_assert(Hash().size() == 64 && sizeof(Signature::of_hash) == crypto_sign_ed25519_BYTES &&
              sizeof(PublicKey::bytes) == crypto_sign_ed25519_PUBLICKEYBYTES);

// Whether libsodium has started. A fork waits until nobody starts it.
struct Sodium {
  HeldMutex mutex;
  bool ready = false;
};

Result<void> start_sodium() {
  static constinit std::atomic<Sodium*> process = nullptr;
  Sodium& sodium = only(process);
  const std::lock_guard lock(sodium.mutex);
  if (!sodium.ready) sodium.ready = sodium_init() >= 0;
  if (sodium.ready) return {};
  return fail(ATTNRT_INTERNAL, "libsodium cannot start");
}

constexpr size_t base64_length(size_t bytes) { return (bytes + 2) / 3 * 4; }

// Decodes base64 into exactly so many bytes. Returns whether the text is that.
bool decode(std::string_view text, std::span<uint8_t> bytes) {
  size_t count = 0;
  const char* end = nullptr;
  return text.size() == base64_length(bytes.size()) &&
         sodium_base642bin(bytes.data(), bytes.size(), text.data(), text.size(), nullptr, &count,
                           &end, sodium_base64_VARIANT_ORIGINAL) == 0 &&
         count == bytes.size() && end == text.data() + text.size();
}

std::string_view kind_of(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), kKind};
}

// Reads the line with a comment, and then the line with so many bytes.
Result<std::string_view> read_pair(const std::vector<std::string_view>& lines, size_t first,
                                   std::string_view label, std::span<uint8_t> bytes) {
  if (!lines[first].starts_with(label)) {
    return fail(ATTNRT_UNSUPPORTED, "line {} begins with {}; expected \"{}\"", first + 1,
                shown(lines[first].substr(0, label.size())), label);
  }
  if (!decode(lines[first + 1], bytes)) {
    return fail(ATTNRT_UNSUPPORTED, "line {} has {} characters; expected base64 of {} bytes, {}",
                first + 2, lines[first + 1].size(), bytes.size(), base64_length(bytes.size()));
  }
  return lines[first].substr(label.size());
}

bool is_signed(std::span<const uint8_t, 64> signature, std::string_view bytes,
               const PublicKey& key) {
  return crypto_sign_ed25519_verify_detached(signature.data(),
                                             reinterpret_cast<const uint8_t*>(bytes.data()),
                                             bytes.size(), key.bytes.data()) == 0;
}

}  // namespace

// minisign takes the id for a number of 64 bits in the order of little-endian machines.
std::string id_text(const KeyId& id) {
  return fmt::format("{:02X}", fmt::join(id.rbegin(), id.rend(), ""));
}

Result<PublicKey> parse_public_key(std::string_view text) {
  std::array<uint8_t, kKind + sizeof(PublicKey)> bytes{};
  if (!decode(text, bytes) || kind_of(bytes) != kOfTheFile) {
    return fail(ATTNRT_INVALID_ARGUMENT,
                "found {}, expected a public key of minisign: RW and {} more characters of base64, "
                "the second line of its file",
                shown(text), base64_length(bytes.size()) - kKind);
  }
  PublicKey key;
  std::memcpy(key.id.data(), bytes.data() + kKind, key.id.size());
  std::memcpy(key.bytes.data(), bytes.data() + kKind + key.id.size(), key.bytes.size());
  return key;
}

Result<Signature> parse_signature(std::string_view text) {
  constexpr size_t kLines = 4;
  if (text.size() > kLargestSignature) {
    return fail(ATTNRT_UNSUPPORTED, "has {} bytes; a signature has at most {}", text.size(),
                kLargestSignature);
  }
  std::vector<std::string_view> lines;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    lines.push_back(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  if (lines.size() != kLines)
    return fail(ATTNRT_UNSUPPORTED, "has {} lines; expected {}", lines.size(), kLines);
  Signature signature;
  std::array<uint8_t, kKind + sizeof(KeyId) + sizeof(Signature::of_hash)> bytes{};
  if (auto read = read_pair(lines, 0, kUntrusted, bytes); !read)
    return tl::unexpected(read.error());
  if (kind_of(bytes) == kOfTheFile) {
    return fail(ATTNRT_UNSUPPORTED,
                "is of the old kind \"Ed\"; expected \"ED\": sign again with a newer minisign, or "
                "with its option -H");
  }
  if (kind_of(bytes) != kPrehashed) {
    return fail(ATTNRT_UNSUPPORTED, "is of the kind {}; expected \"ED\"", shown(kind_of(bytes)));
  }
  std::memcpy(signature.id.data(), bytes.data() + kKind, signature.id.size());
  std::memcpy(signature.of_hash.data(), bytes.data() + kKind + signature.id.size(),
              signature.of_hash.size());
  const auto comment = read_pair(lines, 2, kTrusted, signature.global);
  if (!comment) return tl::unexpected(comment.error());
  signature.trusted_comment = *comment;
  return signature;
}

Result<PublicKey> verify(const Signature& signature, std::string_view bytes,
                         const std::vector<PublicKey>& keys) {
  if (auto started = start_sodium(); !started) return tl::unexpected(started.error());
  const auto has_id = [&](const PublicKey& key) { return key.id == signature.id; };
  if (std::none_of(keys.begin(), keys.end(), has_id)) {
    std::vector<std::string> ids;
    for (const PublicKey& key : keys) ids.push_back(id_text(key.id));
    return fail(ATTNRT_UNSUPPORTED, "is by the key {}; expected {}", id_text(signature.id),
                fmt::join(ids, " or "));
  }
  Hash hash{};
  crypto_generichash_blake2b(hash.data(), hash.size(),
                             reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), nullptr,
                             0);
  const std::string_view hashed(reinterpret_cast<const char*>(hash.data()), hash.size());
  std::string all(signature.of_hash.begin(), signature.of_hash.end());
  all += signature.trusted_comment;
  bool fits = false;
  for (const PublicKey& key : keys) {
    if (!has_id(key) || !is_signed(signature.of_hash, hashed, key)) continue;
    fits = true;
    if (is_signed(signature.global, all, key)) return key;
  }
  if (fits)
    return fail(ATTNRT_UNSUPPORTED, "has a trusted comment that was changed after it was signed");
  return fail(ATTNRT_UNSUPPORTED, "is not of these bytes by the key {}", id_text(signature.id));
}

}  // namespace attnrt::core::minisign
