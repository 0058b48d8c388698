// tests/runtime/cli/streams_test.cpp: every command where stdout or stderr cannot be written
#include <gtest/gtest.h>

#include <array>

#include "support/command.hpp"

namespace attnrt::cli {
namespace {

using Words = std::vector<std::string>;

struct Call {
  const char* name;
  Words words;
  int exit;  // if all can be written
};

const Call kCalls[] = {
    {"help", {"--help"}, 0},
    {"version", {"--version"}, 0},
    {"list", {"list"}, 0},
    {"list_json", {"list", "--json"}, 0},
    {"explain", {"explain", "head_dim=64"}, 0},
    {"explain_no", {"explain", "head_dim=64", "device=rocm"}, 1},
    {"check", {"check", "good.yaml"}, 0},
    {"check_bad", {"check", "bad.yaml"}, 1},
    {"policy", {"policy"}, 0},
    {"verify", {"verify", "--plugin", "fake_full.so", "--rule", "ABI-1", "--cases", "1"}, 0},
    {"bench", {"bench", "--seq", "8", "--samples", "1", "--threads", "1"}, 0},
    {"run", {"run", "--input", "x.safetensors"}, 0},
    {"run_output", {"run", "--input", "x.safetensors", "--output", "y.safetensors"}, 0},
    {"bad_usage", {"lst"}, 2},
    {"bad_json", {"list", "--policy", "bad.yaml", "--json"}, 2},
    {"bad_input", {"run", "--input", "absent"}, 2},
};
std::string name_of(const ::testing::TestParamInfo<Call>& call) { return call.param.name; }
void PrintTo(const Call& call, std::ostream* out) { *out << call.name; }

class Streams : public ::testing::TestWithParam<Call> {
 protected:
  Streams() {
    directory.add("fake_full");
    directory.add("fake_other_name");  // the runtime warns about it on stderr
    directory.write("good.yaml", "schema: 1\n");
    directory.write("bad.yaml", "schema: 1\nbackend: cpu\n");
    const Tensor rows = *Tensor::allocate({ATTNRT_DTYPE_FLOAT, 32, 1}, {1, 2, 1, 8});
    const auto output = resolve_output("--output", directory.text() + "/x.safetensors", {}).value();
    EXPECT_TRUE(write_safetensors(output, {{"q", &rows}, {"k", &rows}, {"v", &rows}}, {}));
  }
  Outcome run(const std::function<void()>& prepare) const {
    Words words = GetParam().words;
    if (words[0] != "check" && words[0] != "--help" && words[0] != "--version")
      words.insert(words.end(), {"--plugins", directory.text()});
    return attnrt_in(directory, words, {}, nullptr, ATTNRT_COMMAND, prepare);
  }
  // The command says on stderr that stdout cannot be written, if it had something to write there.
  void expect_failed_output(const std::function<void()>& prepare) const {
    const Outcome outcome = run(prepare);
    const bool writes = GetParam().exit < 2 || GetParam().name == std::string("bad_json");
    EXPECT_EQ(outcome.exit, writes ? 3 : GetParam().exit) << outcome.err;
    EXPECT_EQ(outcome.err.find("cannot write the output to stdout") != std::string::npos, writes)
        << outcome.err;
  }

  const fakes::Directory directory;
};
INSTANTIATE_TEST_SUITE_P(, Streams, ::testing::ValuesIn(kCalls), name_of);

void point(int descriptor, const char* path) {
  if (dup2(open(path, O_WRONLY), descriptor) < 0) _exit(126);
}
// A pipe that nobody reads.
void point_at_closed_pipe(int descriptor) {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0 || dup2(ends[1], descriptor) < 0) _exit(126);
  close(ends[0]);
  close(ends[1]);
  signal(SIGPIPE, SIG_DFL);
}

TEST_P(Streams, StdoutIsFull) {
  expect_failed_output([] { point(1, "/dev/full"); });
}
TEST_P(Streams, StdoutIsClosed) {
  expect_failed_output([] { close(1); });
}
TEST_P(Streams, StdoutIsAClosedPipe) {
  expect_failed_output([] { point_at_closed_pipe(1); });
}

// The exit code is what it would be.
TEST_P(Streams, StderrCannotBeWritten) {
  const std::function<void()> cases[] = {[] { close(2); }, [] { point(2, "/dev/full"); },
                                         [] { point_at_closed_pipe(2); }};
  for (const auto& prepare : cases) EXPECT_EQ(run(prepare).exit, GetParam().exit);
}

TEST_P(Streams, NeitherCanBeWritten) {
  const bool writes = GetParam().exit < 2 || GetParam().name == std::string("bad_json");
  const std::function<void()> cases[] = {[] { close(0), close(1), close(2); },
                                         [] { point(1, "/dev/full"), point(2, "/dev/full"); },
                                         [] { point_at_closed_pipe(1), point_at_closed_pipe(2); }};
  for (const auto& prepare : cases) EXPECT_EQ(run(prepare).exit, writes ? 3 : GetParam().exit);
}

// Without stdout, a file that is written must not get its descriptor, and then the report.
TEST_P(Streams, AFileIsNotMixedWithTheReport) {
  if (GetParam().name != std::string("run_output")) return;
  const std::string file = directory.text() + "/y.safetensors";
  EXPECT_EQ(run([] {}).exit, 0);
  const std::string expected = fakes::read_file(file);
  EXPECT_EQ(run([] { close(0), close(1), close(2); }).exit, 3);
  EXPECT_EQ(fakes::read_file(file), expected);
}

}  // namespace
}  // namespace attnrt::cli
