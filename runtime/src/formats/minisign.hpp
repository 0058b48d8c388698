// runtime/src/formats/minisign.hpp: reads and verifies signatures; the only user of libsodium
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

// An Ed25519 signature of a file, in the format of minisign:
//
//   untrusted comment: TEXT
//   base64("ED", id of the key, signature)
//   trusted comment: TEXT
//   base64(global signature)
//
// The signature is of the file's BLAKE2b-512 hash ("ED", prehashed). The global one is of the
// signature and the trusted comment. The older kind "Ed", which signs the file itself, is refused.
namespace attnrt::core::minisign {

constexpr size_t kLargestSignature = 16 << 10;  // bytes of a signature file

using KeyId = std::array<uint8_t, 8>;

struct PublicKey {
  KeyId id{};
  std::array<uint8_t, 32> bytes{};
  bool operator==(const PublicKey&) const = default;
};

struct Signature {
  KeyId id{};  // of the key that signed
  std::array<uint8_t, 64> of_hash{};
  std::string trusted_comment;
  std::array<uint8_t, 64> global{};
};

// Returns the id as minisign prints it: 16 hexadecimal digits.
std::string id_text(const KeyId& id);

// Reads the second line of a public key file: "RW" and 54 more characters of base64.
// Errors: INVALID_ARGUMENT, what was found and expected.
Result<PublicKey> parse_public_key(std::string_view text);

// Reads a signature file. Takes no line, blank or byte more than the format has, except that the
// last line need not end. Errors: UNSUPPORTED, with the number of the line.
Result<Signature> parse_signature(std::string_view text);

// Verifies the signature of the bytes and of the trusted comment, by the keys with its id. Returns
// the key that fits. Errors: UNSUPPORTED, which of the two is wrong, or that no key has the id;
// INTERNAL if libsodium cannot start. THREADS: from any thread.
Result<PublicKey> verify(const Signature& signature, std::string_view bytes,
                         const std::vector<PublicKey>& keys);

}  // namespace attnrt::core::minisign
