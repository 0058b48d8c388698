// tests/runtime/cli/io/safetensors_test.cpp: good files are read back, bad ones are refused
#include "cli/io/safetensors.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "cli/io/output_file.hpp"
#include "support/golden.hpp"

namespace attnrt::cli {
namespace {

namespace fs = std::filesystem;

constexpr attnrt_dtype f16{ATTNRT_DTYPE_FLOAT, 16, 1};
constexpr attnrt_dtype f32{ATTNRT_DTYPE_FLOAT, 32, 1};
constexpr attnrt_dtype boolean{ATTNRT_DTYPE_BOOL, 8, 1};

// A test with a temporary directory, which the destructor removes.
class Safetensors : public ::testing::Test {
 protected:
  Safetensors() {
    std::string pattern = (fs::temp_directory_path() / "attnrt-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~Safetensors() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return folder_ / name; }
  size_t files() const {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }
  std::string store(const std::string& name, const std::string& bytes) const {
    std::ofstream(path(name), std::ios::binary) << bytes;
    return path(name);
  }
  // Returns the message with which a file is refused, without the directory's name, or "accepted".
  std::string refusal(const std::string& file) const {
    const auto reader = SafetensorsReader::open(file);
    if (reader) return "accepted";
    EXPECT_EQ(reader.error().code, ATTNRT_INVALID_ARGUMENT);
    std::string message = reader.error().message;
    const size_t at = message.find(folder_.string());
    return at == std::string::npos ? message : message.erase(at, folder_.string().size() + 1);
  }

 private:
  fs::path folder_;
};

std::string length(uint64_t bytes) {
  std::string text(8, '\0');
  for (int i = 0; i < 8; ++i) text[static_cast<size_t>(i)] = static_cast<char>(bytes >> (8 * i));
  return text;
}

std::string file(const std::string& header, size_t data_bytes) {
  return length(header.size()) + header + std::string(data_bytes, 'd');
}

Tensor filled(attnrt_dtype dtype, std::vector<int64_t> shape) {
  Tensor tensor = *Tensor::allocate(dtype, std::move(shape));
  for (int64_t i = 0; i < tensor.bytes(); ++i) tensor.data()[i] = static_cast<std::byte>(i % 251);
  return tensor;
}

OutputPath at(const std::string& path) { return resolve_output("--output", path, {}).value(); }

TEST_F(Safetensors, AreReadAsTheyWereWritten) {
  const Tensor mask = filled(boolean, {1, 3, 5, 7}), q = filled(f16, {1, 5, 3, 2}),
               lse = filled(f32, {1, 3, 5});
  const Tensor empty = filled(f32, {0, 4});
  const Metadata metadata = {{"causal", "true"}, {"prompt", "\"quoted\"\nand \u00e9"}};
  const auto written = write_safetensors(
      at(path("x")), {{"mask", &mask}, {"q", &q}, {"lse", &lse}, {"empty", &empty}}, metadata);
  ASSERT_TRUE(written) << written.error().message;
  EXPECT_EQ(files(), 1U);

  const auto reader = SafetensorsReader::open(path("x"));
  ASSERT_TRUE(reader) << reader.error().message;
  EXPECT_EQ(reader->header().metadata, metadata);
  ASSERT_EQ(reader->header().tensors.size(), 4U);
  const std::map<std::string, const Tensor*> expected = {
      {"mask", &mask}, {"q", &q}, {"lse", &lse}, {"empty", &empty}};
  for (const auto& [name, tensor] : expected) {
    const auto read = reader->read(name);
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(safetensors_name(read->dtype()), safetensors_name(tensor->dtype()));
    EXPECT_EQ(read->shape(), tensor->shape());
    EXPECT_EQ(std::memcmp(read->data(), tensor->data(), static_cast<size_t>(tensor->bytes())), 0)
        << name;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(read->data()) % 64, 0U);
    // For readers that map the file, a tensor begins at a multiple of its element's size.
    EXPECT_EQ(reader->header().tensors.at(name).begin % (tensor->dtype().bits / 8), 0);
  }
}

TEST_F(Safetensors, ViewsAreDense) {
  const Tensor tensor = filled(f16, {2, 0, 3, 5});
  const attnrt_tensor view = tensor.view();
  EXPECT_NE(view.data, nullptr);
  EXPECT_EQ(view.ndim, 4);
  EXPECT_EQ(view.stride[3], 1);
  EXPECT_EQ(view.stride[2], 5);
  EXPECT_EQ(view.stride[1], 15);
  EXPECT_EQ(view.stride[0], 15);
}

TEST_F(Safetensors, LegalFiles) {
  const auto accepts = [&](const std::string& bytes) {
    EXPECT_EQ(refusal(store("x", bytes)), "accepted") << bytes;
  };
  accepts(file("{}", 0));
  accepts(file("{}    ", 0));
  accepts(file(R"({"__metadata__":{}})", 0));
  accepts(file(R"({"q":{"dtype":"F16","shape":[0,9],"data_offsets":[0,0]}})", 0));
  accepts(file(R"({"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
               R"("a":{"dtype":"BOOL","shape":[3],"data_offsets":[4,7]}})",
               7));
  accepts(file(R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[4,4]},)"
               R"("b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
               4));
  accepts(file(R"({"q":{"data_offsets":[0,6],"shape":[1,1,1,3],"dtype":"BF16"}})", 6));
}

TEST_F(Safetensors, EveryRefusal) {
  const auto one = [](const std::string& dtype, const std::string& shape,
                      const std::string& offsets) {
    return R"({"k":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets +
           "}}";
  };
  const auto two = [](const std::string& a, const std::string& b) {
    return R"({"a":{"dtype":"F32","shape":[2],"data_offsets":)" + a +
           R"(},"b":{"dtype":"F32","shape":[2],"data_offsets":)" + b + "}}";
  };
  std::string many = "{";
  for (int64_t i = 0; i <= max_tensors; ++i)
    many += fmt::format(R"({}"{}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})",
                        i == 0 ? "" : ",", i);
  many += "}";
  std::string long_shape = "[1";
  for (int i = 0; i < 1100000; ++i) long_shape += ",1";
  long_shape += "]";
  const std::pair<const char*, std::string> cases[] = {
      {"empty file", ""},
      {"three bytes", "abc"},
      {"length of 0", length(0)},
      {"length beyond the file", length(100) + "{}"},
      {"length above the limit", length(uint64_t{1} << 40) + "{}"},
      {"length of all ones", length(~uint64_t{0}) + "{}"},
      {"a text file", "name: value\nother: value\n"},
      {"not an object", file("[1,2]", 0)},
      {"space before the object", file("  {}", 0)},
      {"header cut short", file(R"({"q":{"dtype":"F16")", 0)},
      {"something after the header", file("{} {}", 0)},
      {"a NUL in the header", file(std::string("{}\0", 3), 0)},
      {"bytes that are not UTF-8", file("{\"\xff\":1}", 0)},
      {"key twice", file(R"({"q":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},)"
                         R"("q":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                         4)},
      {"key twice, escaped",
       file(R"({"q":{"dtype":"F32","dtyp\u0065":"F32","shape":[0],"data_offsets":[0,0]}})", 0)},
      {"metadata twice", file(R"({"__metadata__":{},"__metadata__":{}})", 0)},
      {"metadata key twice", file(R"({"__metadata__":{"a":"1","a":"2"}})", 0)},
      {"metadata is a list", file(R"({"__metadata__":[]})", 0)},
      {"metadata is no text", file(R"({"__metadata__":{"layer":3}})", 0)},
      {"nested deeply", file("{\"q\":" + std::string(1000000, '['), 0)},
      {"nested in a shape", file(one("\"F32\"", "[[1]]", "[0,4]"), 4)},
      {"too many tensors", file(many, 0)},
      {"too many values", file(one("\"F32\"", long_shape, "[0,4]"), 4)},
      {"entry is a number", file(R"({"k":3})", 0)},
      {"unknown key",
       file(R"({"k":{"dtype":"F32","shape":[0],"data_offsets":[0,0],"strides":[1]}})", 0)},
      {"no dtype", file(R"({"k":{"shape":[0],"data_offsets":[0,0]}})", 0)},
      {"no shape", file(R"({"k":{"dtype":"F32","data_offsets":[0,0]}})", 0)},
      {"no data_offsets", file(R"({"k":{"dtype":"F32","shape":[0]}})", 0)},
      {"dtype that is not served", file(one("\"I64\"", "[1]", "[0,8]"), 8)},
      {"dtype in small letters", file(one("\"f16\"", "[1]", "[0,2]"), 2)},
      {"dtype is a number", file(one("16", "[1]", "[0,2]"), 2)},
      {"negative dimension", file(one("\"F32\"", "[1,-5]", "[0,4]"), 4)},
      {"negative zero", file(one("\"F32\"", "[-0]", "[0,0]"), 0)},
      {"fractional dimension", file(one("\"F32\"", "[1.5]", "[0,4]"), 4)},
      {"dimension as a float", file(one("\"F32\"", "[1e0]", "[0,4]"), 4)},
      {"dimension of 2^63", file(one("\"F32\"", "[9223372036854775808]", "[0,4]"), 4)},
      {"dimension of 2^64", file(one("\"F32\"", "[18446744073709551616]", "[0,4]"), 4)},
      {"dimension is text", file(one("\"F32\"", "[\"1\"]", "[0,4]"), 4)},
      {"dimensions that overflow", file(one("\"F32\"", "[4294967296,4294967296,4]", "[0,4]"), 4)},
      {"bytes that overflow", file(one("\"F32\"", "[4611686018427387904]", "[0,0]"), 0)},
      {"overflow behind a zero", file(one("\"F32\"", "[0,4294967296,4294967296]", "[0,0]"), 0)},
      {"no dimensions", file(one("\"F32\"", "[]", "[0,4]"), 4)},
      {"five dimensions", file(one("\"F32\"", "[1,1,1,1,1]", "[0,4]"), 4)},
      {"shape is a number", file(one("\"F32\"", "4", "[0,4]"), 4)},
      {"offsets in reverse", file(one("\"F32\"", "[1]", "[4,0]"), 4)},
      {"one offset", file(one("\"F32\"", "[1]", "[4]"), 4)},
      {"three offsets", file(one("\"F32\"", "[1]", "[0,4,8]"), 4)},
      {"negative offset", file(one("\"F32\"", "[1]", "[-4,0]"), 4)},
      {"offsets too wide", file(one("\"F32\"", "[1]", "[0,8]"), 8)},
      {"offsets too narrow", file(one("\"F32\"", "[2]", "[0,4]"), 4)},
      {"data cut short", file(one("\"F32\"", "[2]", "[0,8]"), 7)},
      {"huge tensor in a small file",
       file(one("\"F32\"", "[1099511627776]", "[0,4398046511104]"), 4)},
      {"data left over", file(one("\"F32\"", "[2]", "[0,8]"), 9)},
      {"data without tensors", file("{}", 1)},
      {"hole in front", file(one("\"F32\"", "[1]", "[4,8]"), 8)},
      {"hole between", file(two("[0,8]", "[12,20]"), 20)},
      {"overlap", file(two("[0,8]", "[4,12]"), 12)},
      {"the same bytes twice", file(two("[0,8]", "[0,8]"), 8)},
  };
  std::string golden;
  for (const auto& [name, bytes] : cases) {
    const std::string message = refusal(store("x.safetensors", bytes));
    EXPECT_NE(message, "accepted") << name;
    EXPECT_LT(message.size(), 300U) << name;
    EXPECT_EQ(message.find_first_of(std::string("\n\0", 2)), std::string::npos) << name;
    golden += fmt::format("{}\n    {}\n", name, message);
  }
  EXPECT_TRUE(testing::matches_golden("cli/safetensors_refusals.txt", golden));
}

TEST_F(Safetensors, OnlyRegularFilesAreRead) {
  EXPECT_EQ(refusal(path("absent")), "absent: cannot be opened: No such file or directory");
  EXPECT_NE(refusal(path("")).find("is not a regular file"), std::string::npos);
  ASSERT_EQ(mkfifo(path("pipe").c_str(), 0600), 0);
  EXPECT_EQ(refusal(path("pipe")), "pipe: is not a regular file");
  EXPECT_EQ(refusal("/dev/zero"), "/dev/zero: is not a regular file");
}

TEST_F(Safetensors, OutputsAreWholeOrAbsent) {
  const Tensor tensor = filled(f32, {2});
  const auto refused = [&](const std::string& name) {
    EXPECT_FALSE(resolve_output("--output", name, {})) << name;
  };
  refused("");
  refused(path("absent/x"));
  refused(path("absent/"));
  refused(path(""));
  refused("/dev/null");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  fs::create_symlink("nowhere", path("dangling"));
  refused(path("dangling"));
  ASSERT_EQ(mkfifo(path("pipe").c_str(), 0600), 0);
  refused(path("pipe"));
  EXPECT_EQ(files(), 2U);

  // A link stays a link, and the file that it leads to is replaced.
  store("real", "old");
  fs::create_symlink("real", path("link"));
  ASSERT_TRUE(write_safetensors(at(path("link")), {{"out", &tensor}}, {}));
  EXPECT_TRUE(fs::is_symlink(path("link")));
  EXPECT_TRUE(SafetensorsReader::open(path("real")));
  EXPECT_EQ(files(), 4U);
}

TEST_F(Safetensors, AFullDiskLeavesNothing) {
  const Tensor tensor = filled(f32, {1 << 20});
  store("x", "old");
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{4096, 4096};
    setrlimit(RLIMIT_FSIZE, &limit);
    const auto written = write_safetensors(at(path("x")), {{"out", &tensor}}, {});
    _exit(written ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(files(), 1U);
  std::string content;
  std::ifstream(path("x")) >> content;
  EXPECT_EQ(content, "old");
}

TEST_F(Safetensors, AFileThatShrinksAfterItWasOpened) {
  const Tensor tensor = filled(f32, {1024});
  ASSERT_TRUE(write_safetensors(at(path("x")), {{"q", &tensor}}, {}));
  const auto reader = SafetensorsReader::open(path("x"));
  ASSERT_TRUE(reader);
  fs::resize_file(path("x"), 200);
  const auto read = reader->read("q");
  ASSERT_FALSE(read);
  EXPECT_NE(read.error().message.find("became shorter"), std::string::npos) << read.error().message;
}

// Changes a good header at random. Each result is refused with one line, or else its entries agree
// with the size of the data.
TEST_F(Safetensors, MutatedHeaders) {
  const std::string good = R"({"__metadata__":{"causal":"true"},)"
                           R"("q":{"dtype":"F16","shape":[1,2,3,4],"data_offsets":[0,48]},)"
                           R"("k":{"dtype":"F32","shape":[1,2,1,4],"data_offsets":[48,80]}})";
  constexpr int64_t data_bytes = 80;
  ASSERT_TRUE(parse_header(good, data_bytes));
  const std::string_view pieces[] = {"[",    "]",      "{",       "}",     "\"",
                                     ",",    ":",      "0",       "-1",    "9223372036854775807",
                                     "1e9",  "null",   "\\u0000", "\"q\"", "\"dtype\"",
                                     "\xff", "[0,48]", "true",    "\n",    " "};
  std::mt19937 random(20261123);  // the same mutations in every run
  const auto below = [&](size_t bound) { return static_cast<size_t>(random() % bound); };
  size_t accepted = 0;
  for (int i = 0; i < 40000; ++i) {
    std::string text = good;
    for (size_t edits = 1 + below(3); edits > 0 && !text.empty(); --edits) {
      const size_t at = below(text.size());
      switch (below(5)) {
        case 0: text[at] = static_cast<char>(random()); break;
        case 1: text.erase(at, 1 + below(8)); break;
        case 2: text.insert(at, pieces[below(std::size(pieces))]); break;
        case 3: text.insert(at, text.substr(below(text.size()), below(40))); break;
        default:
          if (text[at] >= '0' && text[at] <= '9') text[at] = static_cast<char>('0' + below(10));
      }
    }
    const auto header = parse_header(text, data_bytes);
    if (!header) {
      EXPECT_EQ(header.error().code, ATTNRT_INVALID_ARGUMENT) << text;
      EXPECT_FALSE(header.error().message.empty()) << text;
      EXPECT_EQ(header.error().message.find('\n'), std::string::npos) << text;
      continue;
    }
    ++accepted;
    int64_t total = 0;
    for (const auto& [name, entry] : header->tensors) {
      int64_t bytes = entry.dtype.bits / 8;
      for (const int64_t dimension : entry.shape) bytes *= dimension;
      EXPECT_EQ(bytes, entry.end - entry.begin) << text;
      EXPECT_LE(entry.end, data_bytes) << text;
      total += bytes;
    }
    EXPECT_EQ(total, data_bytes) << text;
  }
  EXPECT_GT(accepted, 100U);  // those with changes in names and metadata
}

}  // namespace
}  // namespace attnrt::cli
