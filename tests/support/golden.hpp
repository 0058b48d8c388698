// tests/support/golden.hpp: compares a text with a file under tests/golden
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace attnrt::testing {

inline std::filesystem::path golden_path(const std::string& name) {
  return std::filesystem::path(ATTNRT_TESTS_DIR) / "golden" / name;
}

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// EXPECT_TRUE(matches_golden("cli/list.txt", text)). ATTNRT_UPDATE_GOLDEN=1 writes the file
// instead: read the difference before you commit it.
inline ::testing::AssertionResult matches_golden(const std::string& name, const std::string& text) {
  const std::filesystem::path path = golden_path(name);
  const char* update = std::getenv("ATTNRT_UPDATE_GOLDEN");
  if (update != nullptr && std::string(update) == "1") {
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
    return ::testing::AssertionSuccess();
  }
  if (!std::filesystem::exists(path)) {
    return ::testing::AssertionFailure() << "tests/golden/" << name << " does not exist; found:\n"
                                         << text;
  }
  const std::string expected = read_file(path);
  if (text == expected) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << "tests/golden/" << name << " differs\nfound:\n"
         << text << "\nexpected:\n"
         << expected << "\n(ATTNRT_UPDATE_GOLDEN=1 accepts what was found)";
}

}  // namespace attnrt::testing
