// tests/runtime/formats/json_test.cpp: JSON that is written, read again by another library
#include "formats/json.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

namespace attnrt::core {
namespace {

const std::string kEveryByte = [] {
  std::string text;
  for (int byte = 0; byte < 256; ++byte) text += static_cast<char>(byte);
  return text;
}();

TEST(Json, ValuesWithoutElements) {
  EXPECT_EQ(Json(nullptr).text(), "null");
  EXPECT_EQ(Json(true).text(), "true");
  EXPECT_EQ(Json(false).text(), "false");
  EXPECT_EQ(Json(-7).text(), "-7");
  EXPECT_EQ(Json(std::numeric_limits<int64_t>::min()).text(), "-9223372036854775808");
  EXPECT_EQ(Json(std::numeric_limits<uint64_t>::max()).text(), "18446744073709551615");
  EXPECT_EQ(Json(0.125).text(), "0.125");
  EXPECT_EQ(Json(1.0).text(), "1.0");
  EXPECT_EQ(Json(1e300).text(), "1e+300");
  EXPECT_EQ(Json(INFINITY).text(), "null");
  EXPECT_EQ(Json(NAN).text(), "null");
  EXPECT_EQ(Json("a \"b\" \\ \n\t\x01").text(), "\"a \\\"b\\\" \\\\ \\n\\t\\u0001\"");
  EXPECT_EQ(Json("grün").text(), "\"grün\"");
  EXPECT_EQ(Json("\xFFx").text(), "\"\uFFFDx\"");
  EXPECT_EQ(Json(std::optional<int>()).text(), "null");
  EXPECT_EQ(Json(std::optional<int>(3)).text(), "3");
}

TEST(Json, OfOneLine) {
  EXPECT_EQ(Json(std::vector<int>()).line(), "[]");
  EXPECT_EQ(Json(3).line(), "3");
  const Json json = {{"a", std::vector<int>{1, 2}},
                     {"b", {{"c", "two\n  lines,  \"so\""}}},
                     {"d", std::vector<Json::Member>()}};
  EXPECT_EQ(json.line(), R"({"a": [1, 2], "b": {"c": "two\n  lines,  \"so\""}, "d": {}})");
  EXPECT_EQ(nlohmann::json::parse(json.line()), nlohmann::json::parse(json.text()));
}

TEST(Json, ArraysAndObjects) {
  EXPECT_EQ(Json(std::vector<int>()).text(), "[]");
  EXPECT_EQ(Json(std::vector<Json::Member>()).text(), "{}");
  const Json inner = {{"list", std::vector<Json>{1, "x", nullptr}}};
  const Json outer = {{"b", inner}, {"a", std::vector<std::string>{}}};
  EXPECT_EQ(outer.text(),
            "{\n"
            "  \"a\": [],\n"
            "  \"b\": {\n"
            "    \"list\": [\n"
            "      1,\n"
            "      \"x\",\n"
            "      null\n"
            "    ]\n"
            "  }\n"
            "}");
}

TEST(Json, IsWrittenAsAnotherLibraryWritesIt) {
  const Json ours = {{"text\n", kEveryByte},
                     {"nested", {{"of", {{"empty", std::vector<double>()}, {"flag", true}}}}},
                     {"numbers", std::vector<double>{0.1, -1e-7, 12345678.9}}};
  const auto theirs = nlohmann::json::parse(ours.text());
  EXPECT_EQ(theirs.dump(2), ours.text());
  EXPECT_EQ(theirs["nested"]["of"]["flag"], true);
  EXPECT_EQ(theirs["text\n"].get<std::string>().substr(0, 128), kEveryByte.substr(0, 128));
}

}  // namespace
}  // namespace attnrt::core
