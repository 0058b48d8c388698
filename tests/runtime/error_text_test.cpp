// tests/runtime/error_text_test.cpp: where attnrt_fail cuts a message that is too long
#include <attnrt/plugin.h>
#include <gtest/gtest.h>

#include <string>

namespace attnrt::core {
namespace {

constexpr size_t kRoom = sizeof(attnrt_error{}.message) - 1;

std::string filled(const std::string& text) {
  attnrt_error error = ATTNRT_ERROR_INIT;
  EXPECT_EQ(attnrt_fail(&error, ATTNRT_INTERNAL, "%s", text.c_str()), ATTNRT_INTERNAL);
  EXPECT_EQ(error.code, ATTNRT_INTERNAL);
  return error.message;
}

TEST(ErrorText, AsLongAsThereIsRoomItIsWhole) {
  for (const size_t length : {size_t{0}, size_t{1}, kRoom - 1, kRoom})
    EXPECT_EQ(filled(std::string(length, 'x')), std::string(length, 'x'));
}

TEST(ErrorText, ALongerOneEndsWithDots) {
  for (const size_t length : {kRoom + 1, kRoom + 2, 4 * kRoom})
    EXPECT_EQ(filled(std::string(length, 'x')), std::string(kRoom - 3, 'x') + "...");
}

// Characters of 2, 3 and 4 bytes, each at every place where the cut can fall.
TEST(ErrorText, IsNotCutInsideACharacter) {
  for (const std::string letter : {"\u00e4", "\u20ac", "\U0001f600"}) {
    for (size_t first = 0; first < letter.size(); ++first) {
      std::string text(first, 'x');
      while (text.size() <= kRoom) text += letter;
      const std::string found = filled(text);
      ASSERT_TRUE(found.ends_with("...")) << found;
      const size_t kept = found.size() - 3;
      EXPECT_EQ(found.substr(0, kept), text.substr(0, kept));
      EXPECT_EQ((kept - first) % letter.size(), 0U) << kept;
      EXPECT_GT(kept + letter.size(), kRoom - 3) << "a character more would have fitted";
    }
  }
}

// Bytes that are no UTF-8 are cut somewhere, and never before the text's start.
TEST(ErrorText, OfAnyBytesEnds) {
  const std::string found = filled(std::string(2 * kRoom, '\x80'));
  EXPECT_TRUE(found.ends_with("..."));
  EXPECT_LE(found.size(), kRoom);
}

}  // namespace
}  // namespace attnrt::core
