// tests/fuzz/problem_fuzz.cpp: reads the words of a problem, prints it and reads it again
#include <cstring>

#include "fuzz.hpp"
#include "problem/problem.hpp"

void fuzz_problem(std::string_view input) {
  using namespace attnrt::core;
  using attnrt::fuzz::require;
  Problem problem = default_problem();
  std::string arch;
  if (const auto parsed = parse_problem(input, problem, arch); !parsed) {
    require(parsed.error().code == ATTNRT_INVALID_ARGUMENT, "an error is INVALID_ARGUMENT");
    attnrt::fuzz::require_one_line(parsed.error().message);
    const Problem usual = default_problem();
    require(std::memcmp(&problem, &usual, sizeof problem) == 0 && arch.empty(),
            "an error leaves the problem as it was");
    return;
  }
  const auto checked = check_problem(&problem);
  if (!checked) return attnrt::fuzz::require_one_line(checked.error().message);
  const auto twice = check_problem(&*checked);
  require(twice && same_problem(*twice, *checked), "a checked problem is checked already");
  const std::string text = describe(*checked, arch);
  Problem read = default_problem();
  std::string read_arch;
  const auto again = parse_problem(text, read, read_arch);
  require(again.has_value(), fmt::format("a printed problem is read again: {}: {}", text,
                                         again ? "" : again.error().message));
  const auto read_checked = check_problem(&read);
  require(read_checked && same_problem(*read_checked, *checked) && read_arch == arch,
          fmt::format("a printed problem is the same: {}", text));
  (void)features_of(*checked);
}
