// tests/runtime/formats/minisign_test.cpp: signatures that minisign made, and what is wrong in them
#include "formats/minisign.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

namespace attnrt::core::minisign {
namespace {

using ::testing::HasSubstr;

// Made by minisign 0.11: of the file "hello\n".
constexpr std::string_view kBytes = "hello\n";
constexpr std::string_view kKey = "RWQ7m52EvRK3se5xXCtB9Spuc9UYaN/lchvp8OfNroo5XO0+Dddcitay";
constexpr std::string_view kKeyId = "B1B712BD849D9B3B";
const std::string kComment = "untrusted comment: signature from minisign secret key\n";
const std::string kSignature =
    "RUQ7m52EvRK3sYO9E6d/mk+dmVx+0dakPY0UZVoVegdNyeS9718EtGfkw8XGJ4g8CNiI0b4Ot/"
    "ExhCpNI9aNJbI7Ke0Ub3p"
    "wLgA=\n";
const std::string kTrusted = "trusted comment: file x\n";
const std::string kGlobal =
    "OPE5LxUgGuMJhvgiJGCt6UIQuLztupx0f8R8kumramE644oHoi97mnpouDF2EtKtZg/bSsD8l65bYm1U6wjrCw==\n";
const std::string kWhole = kComment + kSignature + kTrusted + kGlobal;
// The same by minisign -l: of the old kind.
const std::string kOld =
    kComment +
    "RWQ7m52EvRK3sRxBEF6Nn2dLoG871iWK94GobQgILrJKTt4S/"
    "vYkX3lnUdN2+QO9yduiZPRFN9iWwKmgHIyTjup1d+w12Z+"
    "xLgY=\n"
    "trusted comment: timestamp:1796099761\tfile:x.so\n"
    "3YP3TSnbBL02FMD8wb8YgfqO6EG4uvuslYUwdPEoOn3MieSGldw5LOAAThNrgKF1fJWbxwI89uPVRsMFShhpAw==\n";

// "accepted", or the error.
std::string verdict(const std::string& text, std::string_view bytes = kBytes,
                    std::string_view key = kKey) {
  const auto signature = parse_signature(text);
  if (!signature) return signature.error().message;
  const auto verified = verify(*signature, bytes, {parse_public_key(key).value()});
  return verified ? "accepted" : verified.error().message;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(Minisign, WhatMinisignSignedIsAccepted) {
  EXPECT_EQ(verdict(kWhole), "accepted");
  EXPECT_EQ(verdict(kWhole.substr(0, kWhole.size() - 1)), "accepted") << "the last line's end";
  EXPECT_EQ(verdict(replaced(kWhole, "from minisign", "of anybody, for nobody verifies this")),
            "accepted");
  const auto signature = parse_signature(kWhole).value();
  EXPECT_EQ(signature.trusted_comment, "file x");
  EXPECT_EQ(id_text(signature.id), kKeyId);
  EXPECT_EQ(id_text(parse_public_key(kKey)->id), kKeyId);
}

TEST(Minisign, EachFaultHasItsOwnError) {
  EXPECT_EQ(verdict(kWhole, "hellO\n"), "is not of these bytes by the key B1B712BD849D9B3B");
  EXPECT_EQ(verdict(kWhole, ""), "is not of these bytes by the key B1B712BD849D9B3B");
  EXPECT_EQ(verdict(replaced(kWhole, "file x", "file y")),
            "has a trusted comment that was changed after it was signed");
  EXPECT_EQ(verdict(replaced(kWhole, "OPE5", "OPE6")),
            "has a trusted comment that was changed after it was signed");
  EXPECT_EQ(verdict(replaced(kWhole, "YO9E6d", "YO9E6e")),
            "is not of these bytes by the key B1B712BD849D9B3B");
  EXPECT_THAT(verdict(kOld), HasSubstr("is of the old kind \"Ed\"; expected \"ED\""));
  EXPECT_EQ(verdict(replaced(kWhole, "RUQ7", "RVQ7")), "is of the kind ET; expected \"ED\"");
  EXPECT_EQ(verdict(replaced(kWhole, "RUQ7m5", "RUQ7m6")),
            "is by the key B1B712BD84AD9B3B; expected B1B712BD849D9B3B");
}

TEST(Minisign, TwoKeysMayHaveOneId) {
  const PublicKey right = parse_public_key(kKey).value();
  PublicKey other = right;
  other.bytes[0] ^= 1;
  const auto signature = parse_signature(kWhole).value();
  EXPECT_EQ(verify(signature, kBytes, {other, right}).value(), right);
  EXPECT_FALSE(verify(signature, kBytes, {other}));
  EXPECT_THAT(verify(signature, kBytes, {}).error().message, HasSubstr("is by the key"));
}

TEST(Minisign, TheFormatIsReadStrictly) {
  EXPECT_EQ(verdict(""), "has 0 lines; expected 4");
  EXPECT_EQ(verdict(kComment + kSignature), "has 2 lines; expected 4");
  EXPECT_EQ(verdict(kWhole + "\n"), "has 5 lines; expected 4");
  EXPECT_EQ(verdict("\n" + kComment + kSignature + kTrusted),
            "line 1 begins with \"\"; expected "
            "\"untrusted comment: \"");
  EXPECT_EQ(verdict(kComment + kSignature + kComment + kGlobal),
            "line 3 begins with untrusted comment; expected \"trusted comment: \"");
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
           {"LgA=\n", "LgA\n"},     // no padding
           {"LgA=\n", "LgA=\r\n"},  // another line end
           {"LgA=\n", "LgB=\n"},    // bits behind the last byte
           {"LgA=\n", " LgA=\n"},   // a blank
           {"LgA=\n", "LgAA\n"},    // a byte more
           {"RUQ7", "RUQ-"},        // another alphabet
           {"RUQ7", std::string("RUQ\0", 4)}}) {
    EXPECT_THAT(verdict(replaced(kWhole, from, to)), HasSubstr("expected base64 of 74 bytes, 100"))
        << to;
  }
  EXPECT_THAT(verdict(replaced(kWhole, "Cw==", "Cw=")),
              HasSubstr("line 4 has 87 characters; expected base64 of 64 bytes, 88"));
  EXPECT_EQ(verdict(std::string(kLargestSignature + 1, 'x')),
            "has 16385 bytes; a signature has at most 16384");
}

TEST(Minisign, NoPrefixAndNoFlippedBitIsAccepted) {
  for (size_t length = 0; length + 1 < kWhole.size(); ++length)
    EXPECT_NE(verdict(kWhole.substr(0, length)), "accepted") << length;
  for (size_t at = kComment.size(); at + 1 < kWhole.size(); ++at) {
    std::string text = kWhole;
    text[at] = static_cast<char>(text[at] ^ 1);
    EXPECT_NE(verdict(text), "accepted") << at;
  }
}

TEST(Minisign, PublicKeys) {
  for (const std::string bad :
       {"", "RWQ7", "RUQ7m52EvRK3se5xXCtB9Spuc9UYaN/lchvp8OfNroo5XO0+Dddcitay",
        "RWQ7m52EvRK3se5xXCtB9Spuc9UYaN/lchvp8OfNroo5XO0+Dddcita",
        "RWQ7m52EvRK3se5xXCtB9Spuc9UYaN/lchvp8OfNroo5XO0+Dddcitay=",
        "untrusted comment: minisign public key B1B712BD849D9B3B"}) {
    const auto key = parse_public_key(bad);
    ASSERT_FALSE(key) << bad;
    EXPECT_EQ(key.error().code, ATTNRT_INVALID_ARGUMENT);
    EXPECT_THAT(key.error().message,
                HasSubstr("expected a public key of minisign: RW and 54 more characters"));
  }
}

}  // namespace
}  // namespace attnrt::core::minisign
