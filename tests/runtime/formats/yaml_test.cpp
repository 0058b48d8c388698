// tests/runtime/formats/yaml_test.cpp: trees of YAML texts, and errors with their line
#include "formats/yaml.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <random>

#include "fakes/fakes.hpp"

namespace attnrt::core::yaml {
namespace {

using ::testing::HasSubstr;

Document document(std::string_view text) {
  auto parsed = parse(text, "p.yaml");
  EXPECT_TRUE(parsed) << parsed.error().message;
  return parsed ? *std::move(parsed) : Document{};
}

std::string error(std::string_view text) {
  const auto parsed = parse(text, "p.yaml");
  return parsed ? "accepted" : parsed.error().message;
}

std::string repeat(std::string_view text, int times) {
  std::string result;
  while (times-- > 0) result += text;
  return result;
}

// yaml-cpp looks ahead for the digits of an escape, and counts what it looked for.
TEST(Yaml, AnErrorsPlaceIsInTheText) {
  const auto document = parse("a: 1\n\"\\u~\"", "policy.yaml");
  ASSERT_FALSE(document);
  EXPECT_EQ(document.error().message,
            "policy.yaml:2:6: this is not YAML: bad character found while scanning hex number");
}

TEST(Yaml, NodesKnowTheirPlace) {
  const Document parsed = document("a: 1\nlist:\n  - x\n  - {k: 'v'}\nempty:\n");
  const Node& root = parsed.root;
  ASSERT_EQ(root.kind, Kind::map);
  EXPECT_EQ(root.find("a")->place(), "p.yaml:1:4");
  const Node& list = *root.find("list");
  ASSERT_EQ(list.items.size(), 2U);
  EXPECT_EQ(list.items[0].place(), "p.yaml:3:5");
  EXPECT_EQ(list.items[1].keys[0].place(), "p.yaml:4:6");
  EXPECT_EQ(list.items[1].find("k")->place(), "p.yaml:4:9");
  EXPECT_EQ(root.find("empty")->kind, Kind::null);
  EXPECT_GE(root.find("empty")->line, 5);
  EXPECT_EQ(root.find("missing"), nullptr);
}

// yaml-cpp quotes the byte that follows the backslash: here the one that it takes for the end.
TEST(Yaml, ErrorsQuoteNoControlCharacters) {
  EXPECT_THAT(error("a: \"\\"), HasSubstr("unknown escape character: \\x04"));
  EXPECT_THAT(error("a: \"\\\xC3\xA4\""), HasSubstr("unknown escape character: \\xc3"));
}

TEST(Yaml, PlacesSurviveAMove) {
  Document first = document("a: 1");
  const Document second = std::move(first);
  EXPECT_EQ(second.root.find("a")->place(), "p.yaml:1:4");
}

TEST(Yaml, QuotesMakeText) {
  const Document parsed = document("[1, '1', \"1\", !!str 1, ~, null, '']");
  const auto& items = parsed.root.items;
  EXPECT_FALSE(items[0].quoted);
  for (size_t i = 1; i < 4; ++i) EXPECT_TRUE(items[i].quoted) << i;
  EXPECT_EQ(items[4].kind, Kind::null);
  EXPECT_EQ(items[5].kind, Kind::null);
  EXPECT_EQ(items[6].kind, Kind::scalar);
}

TEST(Yaml, NothingIsANullDocument) {
  for (const std::string_view text : {"", "\n\n", "# only a comment\n", "---\n", "--- ~\n", "null",
                                      "\xEF\xBB\xBF", "---\n...\n"}) {
    const Document parsed = document(text);
    EXPECT_EQ(parsed.root.kind, Kind::null) << text;
    EXPECT_GE(parsed.root.line, 1);
  }
}

TEST(Yaml, AValueThatIsMissingLiesAtItsKey) {
  const Document parsed = document("a:\nb: {c: , d: ~}\ne:\n\n  # nothing\n");
  EXPECT_EQ(parsed.root.find("a")->place(), "p.yaml:1:1");
  EXPECT_EQ(parsed.root.find("b")->find("d")->place(), "p.yaml:2:13");
  EXPECT_EQ(parsed.root.find("b")->find("c")->line, 2);
  EXPECT_EQ(parsed.root.find("e")->place(), "p.yaml:3:1");
}

TEST(Yaml, ReadsAFileOrSaysWhyNot) {
  const fakes::Directory directory;
  EXPECT_EQ(*read_text(directory.write("p.yaml", "a: 1\n")), "a: 1\n");
  EXPECT_EQ(read_text(directory.path()).error().message, "cannot be read: Is a directory");
  EXPECT_EQ(read_text(directory.path() / "none").error().message,
            "cannot be read: No such file or directory");
  EXPECT_EQ(read_text("").error().message, "cannot be read: No such file or directory");
  EXPECT_GT(read_text("/dev/zero")->size(), size_t{1} << 20) << "no more than its parser refuses";
}

TEST(Yaml, AliasesRepeatWhatTheyName) {
  const Document parsed = document("a: &x {k: [1, 2]}\nb: *x\n");
  EXPECT_EQ(parsed.root.find("b")->find("k")->items.size(), 2U);
}

TEST(Yaml, RefusesWhatYamlCppTakes) {
  EXPECT_EQ(error("a: 1\nb: 2\na: 3\n"),
            "p.yaml:3:1: found a twice, expected once; the first is in line 1");
  EXPECT_EQ(error("{a: {b: 1, 'b': 2}}"),
            "p.yaml:1:12: found b twice, expected once; the first is in line 1");
  EXPECT_EQ(error("? [a]\n: 1\n"), "p.yaml:1:3: found a list as a key, expected a word");
  EXPECT_EQ(error("{{a: 1}: 2}"), "p.yaml:1:2: found a map as a key, expected a word");
  EXPECT_THAT(error("~: 1"), HasSubstr("found nothing as a key, expected a word"));
  EXPECT_THAT(error("a: 1\n---\nb: 2\n"), HasSubstr("found a second document, expected one"));
  EXPECT_EQ(error("a: &x [*x]"), "p.yaml:1:8: found an alias inside of its own anchor");
  EXPECT_EQ(error("a: !!int 3"), "p.yaml:1:4: found the tag tag:yaml.org,2002:int, expected none");
  EXPECT_THAT(error("a: !local {b: 1}"), HasSubstr("found the tag !local, expected none"));
}

TEST(Yaml, RefusesMalformedText) {
  for (const std::string_view text :
       {"a: [1, 2", "a: b: c", "\t- a", "a: 'x", "{a: 1", "a: *nowhere", "- a\nb: 1",
        "%YAML 9.9.9\n---\na: 1", "]", "}", "@", "`", "a: \"\\q\""}) {
    EXPECT_THAT(error(text), ::testing::MatchesRegex("p.yaml:[0-9]+:[0-9]+: .+")) << text;
  }
}

TEST(Yaml, RefusesBytesThatAreNoText) {
  EXPECT_EQ(error(std::string_view("a: 1\nb: \0", 9)),
            "p.yaml:2:4: found byte 0x00, expected UTF-8 text");
  EXPECT_EQ(error("a: 1\x04\nb: 2"),
            "p.yaml:1:5: found byte 0x04, expected UTF-8 text");  // yaml-cpp: the end
  EXPECT_EQ(error("\xC3\xA9: \xE9"), "p.yaml:1:4: found byte 0xe9, expected UTF-8 text");
  EXPECT_EQ(error("\x7F"), "p.yaml:1:1: found byte 0x7f, expected UTF-8 text");
  for (const std::string_view bad :
       {"\xFF\xFE", "\xC0\xAF", "\xE0\x80\xAF", "\xED\xA0\x80", "\xF0\x80\x80\xAF",
        "\xF4\x90\x80\x80", "\xF8\x88\x80\x80\x80", "\xE2\x82", "\x80"}) {
    EXPECT_THAT(error(bad), HasSubstr("expected UTF-8 text"));
  }
  EXPECT_EQ(document("k: \xE2\x82\xAC\xF0\x9F\x98\x80").root.find("k")->text,
            "\xE2\x82\xAC\xF0\x9F\x98\x80");
}

TEST(Yaml, LimitsDepthSizeAndAliases) {
  EXPECT_EQ(error(repeat("[", 64) + repeat("]", 64)), "accepted");
  EXPECT_THAT(error(repeat("[", 65) + repeat("]", 65)), HasSubstr("more than 64 levels"));
  for (const std::string_view opener : {"[", "{", "- ", "? ", "{a: ", "[{a: "}) {
    EXPECT_NE(error(repeat(opener, 100000)), "accepted") << opener;
  }
  EXPECT_THAT(error(std::string((1 << 20) + 1, ' ')),
              HasSubstr("found more than 1048576 bytes, expected at most that many"));
  EXPECT_THAT(error(repeat("- 1\n", 200000)), HasSubstr("found over 100000 nodes"));

  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i)
    bomb += fmt::format("a{0}: &a{0} [{1}]\n", i, repeat(fmt::format("*a{}, ", i - 1), 9));
  EXPECT_THAT(error(bomb), HasSubstr("found over 100000 nodes"));
  EXPECT_THAT(error("a: &a " + std::string(500000, 'x') + "\nb: [" + repeat("*a, ", 1000) + "]"),
              HasSubstr("4194304 bytes"));
  // Each alias is shallow, what they build is not.
  std::string deep = "a0: &a0 " + repeat("[", 40) + repeat("]", 40) + "\n";
  for (int i = 1; i < 4; ++i)
    deep += fmt::format("a{0}: &a{0} {1}*a{2}{3}\n", i, repeat("[", 40), i - 1, repeat("]", 40));
  EXPECT_THAT(error(deep), HasSubstr("more than 64 levels"));
}

template <class T>
std::string outcome(const Result<T>& result) {
  return result ? fmt::format("{}", *result) : result.error().message;
}

TEST(Yaml, ReadsWholeNumbersAsDecimal) {
  const auto read = [](std::string_view text) {
    return outcome(integer(document(text).root, "threads"));
  };
  EXPECT_EQ(read("0"), "0");
  EXPECT_EQ(read("-12"), "-12");
  EXPECT_EQ(read("9223372036854775807"), "9223372036854775807");
  EXPECT_EQ(read("010"), "p.yaml:1:1: threads: found 010, expected a whole number");
  EXPECT_EQ(read("'1'"), "p.yaml:1:1: threads: found \"1\", expected a whole number");
  EXPECT_EQ(read("[1]"), "p.yaml:1:1: threads: found a list, expected a whole number");
  EXPECT_EQ(read("~"), "p.yaml:1:1: threads: found nothing, expected a whole number");
  for (const std::string_view text : {"9223372036854775808", "1e3", "1.0", "0x10", "+1", "1_000",
                                      "-", "- 1", "true", "1 2", "-01", "''", ".nan"}) {
    EXPECT_THAT(read(text), HasSubstr("expected a whole number")) << text;
  }
}

TEST(Yaml, ReadsFiniteNumbers) {
  const auto read = [](std::string_view text) {
    return outcome(real(document(text).root, "softcap"));
  };
  EXPECT_EQ(read("0.5"), "0.5");
  EXPECT_EQ(read("-1e3"), "-1000");
  EXPECT_EQ(read(".5"), "0.5");
  for (const std::string_view text : {"1e400", ".nan", "nan", "inf", ".inf", "-inf", "-.inf", "1e",
                                      "0x1p3", "1,5", "'1'", "+1", "{}"}) {
    EXPECT_THAT(read(text), HasSubstr("p.yaml:1:1: softcap: found ")) << text;
    EXPECT_THAT(read(text), HasSubstr("expected a finite number")) << text;
  }
}

TEST(Yaml, ReadsTrueAndFalseOnly) {
  const auto read = [](std::string_view text) {
    return outcome(boolean(document(text).root, "enabled"));
  };
  EXPECT_EQ(read("true"), "true");
  EXPECT_EQ(read("false"), "false");
  for (const std::string_view text :
       {"yes", "no", "on", "True", "1", "0", "'true'", "~", "[true]"}) {
    EXPECT_THAT(read(text), HasSubstr("expected true or false")) << text;
  }
}

TEST(Yaml, ReadsWords) {
  EXPECT_EQ(outcome(word(document("a b").root, "name")), "a b");
  EXPECT_EQ(outcome(word(document("''").root, "name")),
            "p.yaml:1:1: name: found \"\", expected a word");
  EXPECT_EQ(*words(document("[a, 1]").root, "x"), (std::vector<std::string>{"a", "1"}));
  EXPECT_EQ(*words(document("a").root, "x"), std::vector<std::string>{"a"});
  EXPECT_TRUE(words(document("[]").root, "x")->empty());
  EXPECT_EQ(words(document("[a, [b]]").root, "x").error().message,
            "p.yaml:1:5: x: found a list, expected a word");
  EXPECT_EQ(words(document("{a: b}").root, "x").error().message,
            "p.yaml:1:1: x: found a map, expected a list of words");
}

TEST(Yaml, UnknownKeysNameTheNearest) {
  const auto keys = [](std::string_view text, std::string_view where) {
    Errors errors;
    only_keys(document(text).root, {"priority", "enabled", "version"}, where, errors);
    std::string texts;
    for (const Error& error : errors) texts += (texts.empty() ? "" : "\n") + error.message;
    return errors.empty() ? "accepted" : texts;
  };
  EXPECT_EQ(keys("priority: 1\nenabled: true", "b"), "accepted");
  EXPECT_EQ(keys("", "b"), "accepted");
  EXPECT_EQ(keys("enabled: 1\npriorty: 3", "backends.cpu"),
            "p.yaml:2:1: backends.cpu.priorty: unknown key; did you mean priority?");
  EXPECT_EQ(keys("zzz: 3", ""),
            "p.yaml:1:1: zzz: unknown key; expected one of priority, enabled, version");
  EXPECT_EQ(keys("enabld: 1\nenabled: 1\n? priorty\n", ""),
            "p.yaml:1:1: enabld: unknown key; did you mean enabled?\n"
            "p.yaml:3:3: priorty: unknown key; did you mean priority?");
  EXPECT_EQ(keys("3", "backends.cpu"), "p.yaml:1:1: backends.cpu: found 3, expected a map");
  EXPECT_EQ(keys("\"a\\nb\\e\": 3", ""),
            "p.yaml:1:1: a\\nb\\x1b: unknown key; expected one of priority, enabled, version");
  EXPECT_THAT(keys(std::string(500, 'k') + ": 1", ""),
              HasSubstr(std::string(60, 'k') + "...: unknown key"));
}

TEST(Yaml, SurvivesAnyBytes) {
  std::mt19937 random(11);
  const std::string_view pieces[] = {"[",
                                     "]",
                                     "{",
                                     "}",
                                     ":",
                                     ": ",
                                     "- ",
                                     "? ",
                                     "&a ",
                                     "*a",
                                     "!t ",
                                     "!!str ",
                                     "'",
                                     "\"",
                                     "\n",
                                     "\n  ",
                                     "\t",
                                     "#",
                                     " #",
                                     "|",
                                     ">",
                                     "%",
                                     "@",
                                     "---\n",
                                     "...",
                                     ",",
                                     "k",
                                     "0",
                                     "\\",
                                     "\xC3\xA9",
                                     "\xEF\xBB\xBF",
                                     "\x85",
                                     "\r",
                                     "~",
                                     "<<: "};
  const auto start = std::chrono::steady_clock::now();
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (auto length = random() % 40; length > 0; --length)
      text += pieces[random() % std::size(pieces)];
    if (const auto parsed = parse(text, "p.yaml"); !parsed) {
      EXPECT_THAT(parsed.error().message, ::testing::StartsWith("p.yaml:"));
      EXPECT_EQ(parsed.error().message.find('\n'), std::string::npos);
    }
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

}  // namespace
}  // namespace attnrt::core::yaml
