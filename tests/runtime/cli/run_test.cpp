// tests/runtime/cli/run_test.cpp: attnrt run on a model's tensors, edge cases and bad files
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "support/command.hpp"

namespace attnrt::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using Words = std::vector<std::string>;

constexpr attnrt_dtype f16{ATTNRT_DTYPE_FLOAT, 16, 1};
constexpr attnrt_dtype f32{ATTNRT_DTYPE_FLOAT, 32, 1};
constexpr attnrt_dtype f64{ATTNRT_DTYPE_FLOAT, 64, 1};
constexpr attnrt_dtype bf16{ATTNRT_DTYPE_BFLOAT, 16, 1};
constexpr attnrt_dtype boolean{ATTNRT_DTYPE_BOOL, 8, 1};
constexpr attnrt_dtype int32{ATTNRT_DTYPE_INT, 32, 1};

// The content of a file: tensors and metadata.
struct Content {
  std::map<std::string, Tensor> tensors;
  Metadata metadata;

  Content& add(const std::string& name, attnrt_dtype dtype, std::vector<int64_t> shape) {
    tensors[name] = *Tensor::allocate(dtype, std::move(shape));
    return *this;
  }
  template <class T>
  Content& add(const std::string& name, attnrt_dtype dtype, std::vector<int64_t> shape,
               const std::vector<T>& values) {
    add(name, dtype, std::move(shape));
    std::memcpy(tensors[name].data(), values.data(), values.size() * sizeof(T));
    return *this;
  }
  Content& say(const std::string& key, const std::string& value) {
    metadata[key] = value;
    return *this;
  }
  void write(const std::string& path) const {
    std::map<std::string, const Tensor*> named;
    for (const auto& [name, tensor] : tensors) named[name] = &tensor;
    const auto written =
        write_safetensors(resolve_output("--output", path, {}).value(), named, metadata);
    ASSERT_TRUE(written) << written.error().message;
  }
};

float f32_at(const Tensor& tensor, size_t index) {
  float value = 0;
  std::memcpy(&value, tensor.data() + index * sizeof value, sizeof value);
  return value;
}

// Returns zeros of shapes that fit: 4 query heads over 2 key heads, 3 queries, 5 keys, head_dim 8,
// head_dim_v 16.
Content plain() {
  Content content;
  content.add("q", f16, {1, 3, 4, 8}).add("k", f16, {1, 5, 2, 8}).add("v", f16, {1, 5, 2, 16});
  return content;
}

Content read(const std::string& path) {
  Content content;
  const auto reader = SafetensorsReader::open(path);
  EXPECT_TRUE(reader) << reader.error().message;
  if (!reader) return content;
  content.metadata = reader->header().metadata;
  for (const auto& [name, entry] : reader->header().tensors)
    content.tensors[name] = *reader->read(name);
  return content;
}

class Run : public ::testing::Test {
 protected:
  // Uses the plugins that are built beside the command, unless `plugins` names a directory.
  Outcome run(Words words, const std::string& plugins = {}) const {
    words.insert(words.begin(), {"run", "--input", "x.safetensors", "--output", "y.safetensors"});
    if (!plugins.empty()) words.insert(words.end(), {"--plugins", plugins});
    return attnrt_in(directory, std::move(words));
  }
  Outcome run(const Content& content, Words words = {}, const std::string& plugins = {}) const {
    content.write(directory.text() + "/x.safetensors");
    return run(std::move(words), plugins);
  }
  std::string output() const { return directory.text() + "/y.safetensors"; }
  size_t files() const {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(directory.path()), fs::directory_iterator()));
  }

  const fakes::Directory directory;
};

// One query, and keys of 8 bits: with q 0, all keys weigh the same, and out is the mean of
// v_scale * v.
TEST_F(Run, KeysAndValuesOf8Bits) {
  constexpr attnrt_dtype i8{ATTNRT_DTYPE_INT, 8, 1}, f8{ATTNRT_DTYPE_FLOAT8_E4M3FN, 8, 1};
  const auto content = [&](attnrt_dtype dtype, const std::vector<uint8_t>& values) {
    Content made;
    made.add("q", f16, {1, 1, 1, 2}).add("k", dtype, {1, 2, 1, 2});
    made.add("v", dtype, {1, 2, 1, 2}, values);
    made.add<float>("k_scale", f32, {1}, {1}).add<float>("v_scale", f32, {1}, {0.5F});
    made.say("out_dtype", "f32");
    return made;
  };
  const auto out = [&] {
    const Content written = read(output());
    const Tensor& tensor = written.tensors.at("out");
    EXPECT_EQ(tensor.dtype().bits, 32);
    return std::vector{f32_at(tensor, 0), f32_at(tensor, 1)};
  };
  // 3 and -4, 5 and 8 as i8; as e4m3fn, 0x38 is 1, 0xc0 -2, 0x40 2 and 0x44 3.
  ASSERT_EQ(run(content(i8, {3, 0xfc, 5, 8})).exit, 0);
  EXPECT_EQ(out(), (std::vector<float>{2, 1}));
  ASSERT_EQ(run(content(f8, {0x38, 0xc0, 0x40, 0x44})).exit, 0);
  EXPECT_EQ(out(), (std::vector<float>{0.75, 0.25}));

  Content mixed = content(i8, {3, 0xfc, 5, 8});
  mixed.add("v", f16, {1, 2, 1, 2});
  EXPECT_THAT(run(mixed).err, HasSubstr("tensors k and v disagree: dtype is i8 and f16"));
}

TEST_F(Run, ValuesInTheKeys) {
  Content content;
  content.add("q", f32, {1, 1, 1, 2}).add<float>("k", f32, {1, 2, 1, 2}, {2, 3, 4, 5});
  content.say("v_in_k", "true").say("head_dim_v", "1");
  const Outcome outcome = run(content);
  ASSERT_EQ(outcome.exit, 0) << outcome.err;
  const Content written = read(output());
  EXPECT_EQ(written.tensors.at("out").shape(), (std::vector<int64_t>{1, 1, 1, 1}));
  EXPECT_EQ(f32_at(written.tensors.at("out"), 0), 3);
}

TEST_F(Run, AModelsTensors) {
  // out is a mean of values of v, which are all below 16 in magnitude. Rounding it costs at most
  // half a unit in the last place of 16. The rest of the error is that of float32.
  const std::pair<const char*, double> cases[] = {{"layer00", 0x1p-8},
                                                  {"layer18", 0x1p-8},
                                                  {"layer18_bf16", 0x1p-5},
                                                  {"layer18_decode", 0x1p-8}};
  for (const auto& [name, tolerance] : cases) {
    SCOPED_TRACE(name);
    const std::string input =
        std::string(ATTNRT_TESTS_DIR "/data/smollm2_") + name + ".safetensors";
    const Outcome outcome = attnrt_in(
        directory, {"run", "--input", input, "--output", "y.safetensors", "--lse", "--json"});
    ASSERT_EQ(outcome.exit, 0) << outcome.err;
    const auto document = nlohmann::json::parse(outcome.out);
    EXPECT_EQ(document["schema"], "attnrt/1");
    EXPECT_EQ(document["kind"], "run");
    EXPECT_EQ(document["backend"]["name"], "cpu");
    EXPECT_EQ(document["problem"]["causal"], true);  // the file's metadata
    EXPECT_LT(document["error"]["out"]["max"], tolerance * 1.01);
    EXPECT_LT(document["error"]["lse"]["max"], 1e-4);
    EXPECT_GT(document["time"]["median_us"], 0);

    const Content given = read(input), found = read(output());
    EXPECT_EQ(found.tensors.at("out").shape(), given.tensors.at("expected").shape());
    EXPECT_EQ(safetensors_name(found.tensors.at("out").dtype()),
              safetensors_name(given.tensors.at("q").dtype()));
    EXPECT_EQ(found.tensors.at("lse").shape(), given.tensors.at("expected_lse").shape());
    EXPECT_EQ(found.metadata.at("backend"), "cpu");
    EXPECT_EQ(files(), 1U);
  }
}

// The same tensors as one packed sequence.
TEST_F(Run, PackedSequences) {
  Content content = read(ATTNRT_TESTS_DIR "/data/smollm2_layer18.safetensors");
  for (const char* name : {"q", "k", "v", "expected", "expected_lse"}) {
    const Tensor dense = std::move(content.tensors.at(name));
    const std::vector<int64_t> shape(dense.shape().begin() + 1, dense.shape().end());
    content.add(name, dense.dtype(), shape);
    std::memcpy(content.tensors.at(name).data(), dense.data(), static_cast<size_t>(dense.bytes()));
  }
  content.add<int32_t>("offsets_q", int32, {2}, {0, 121})
      .add<int32_t>("offsets_kv", int32, {2}, {0, 121});
  const Outcome outcome = run(content, {"--lse", "--json"});
  ASSERT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_LT(nlohmann::json::parse(outcome.out)["error"]["out"]["max"], 0x1p-8 * 1.01);
}

TEST_F(Run, FlagsWinOverMetadata) {
  Content content = plain();
  content.say("causal", "true")
      .say("window_left", "2")
      .say("scale", "0.5")
      .say("lse", "true")
      .say("align", "top_left");
  const auto problem = [&](Words words) {
    words.emplace_back("--json");
    const Outcome outcome = run(content, words);
    EXPECT_EQ(outcome.exit, 0) << outcome.err;
    return nlohmann::json::parse(outcome.out)["problem"];
  };
  auto found = problem({});
  EXPECT_EQ(found["causal"], true);
  EXPECT_EQ(found["window_left"], 2);
  EXPECT_EQ(found["scale"], 0.5);
  EXPECT_EQ(found["lse"], true);
  EXPECT_EQ(found["align"], "top_left");
  found =
      problem({"--no-causal", "--window-left", "unbounded", "--scale", "2", "--no-lse", "--align",
               "bottom_right", "--softcap", "30", "--window-right", "0", "--deterministic"});
  EXPECT_EQ(found["causal"], false);
  EXPECT_EQ(found["window_left"], nullptr);
  EXPECT_EQ(found["window_right"], 0);
  EXPECT_EQ(found["scale"], 2);
  EXPECT_EQ(found["softcap"], 30);
  EXPECT_EQ(found["lse"], false);
  EXPECT_EQ(found["align"], "bottom_right");
  EXPECT_EQ(found["deterministic"], true);
  EXPECT_EQ(found["out_dtype"], "off");
  found = problem({"--batch-invariant", "--out-dtype", "f32"});
  EXPECT_EQ(found["batch_invariant"], true);
  EXPECT_EQ(found["out_dtype"], "f32");
}

// Each word that the tensors do not determine has an option.
TEST_F(Run, ValuesInTheKeysByOption) {
  Content content;
  content.add("q", f32, {1, 1, 1, 2}).add<float>("k", f32, {1, 2, 1, 2}, {2, 3, 4, 5});
  const Outcome outcome = run(content, {"--v-in-k", "--head-dim-v", "1"});
  ASSERT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_EQ(f32_at(read(output()).tensors.at("out"), 0), 3);
}

TEST_F(Run, EveryTensor) {
  Content content = plain();
  content.add<uint8_t>("mask", boolean, {1, 1, 3, 5}, std::vector<uint8_t>(15, 1))
      .add("alibi_slopes", f32, {4})
      .add("sinks", f32, {4})
      .add<int32_t>("kv_lengths", int32, {1}, {2});
  const Outcome outcome = run(content, {"--json"});
  ASSERT_EQ(outcome.exit, 0) << outcome.err;
  const auto problem = nlohmann::json::parse(outcome.out)["problem"];
  EXPECT_EQ(problem["mask"], "boolean");
  for (const char* word : {"alibi", "sinks", "kv_lengths"}) EXPECT_EQ(problem[word], true) << word;
}

TEST_F(Run, NoRowsAndNoKeys) {
  Content content;
  content.add("q", f32, {1, 0, 4, 8})
      .add("k", f32, {1, 5, 2, 8})
      .add("v", f32, {1, 5, 2, 8})
      .add("expected", f64, {1, 0, 4, 8});
  ASSERT_EQ(run(content, {"--lse"}).exit, 0);
  EXPECT_EQ(read(output()).tensors.at("out").shape(), (std::vector<int64_t>{1, 0, 4, 8}));

  Content no_keys;
  const double unseen = -std::numeric_limits<double>::infinity();
  no_keys.add("q", f32, {1, 2, 4, 8})
      .add("k", f32, {1, 0, 2, 8})
      .add("v", f32, {1, 0, 2, 8})
      .add("expected", f64, {1, 2, 4, 8});
  no_keys.add("expected_lse", f64, {1, 4, 2}, std::vector<double>(8, unseen));
  const Outcome outcome = run(no_keys, {"--lse", "--json"});
  ASSERT_EQ(outcome.exit, 0) << outcome.err;
  const auto error = nlohmann::json::parse(outcome.out)["error"];
  EXPECT_EQ(error["out"]["max"], 0);
  EXPECT_EQ(error["lse"]["max"], 0);

  Content no_batch;
  no_batch.add("q", f32, {0, 2, 4, 8}).add("k", f32, {0, 3, 2, 8}).add("v", f32, {0, 3, 2, 8});
  EXPECT_EQ(run(no_batch).exit, 0);
}

// An error that is not a number must not look like none.
TEST_F(Run, NanIsAnError) {
  Content content = plain();
  content.add("expected", f64, {1, 3, 4, 16}, std::vector<double>(1, std::nan("")));
  const Outcome text = run(content);
  ASSERT_EQ(text.exit, 3) << text.err;
  EXPECT_NE(text.out.find("out max inf mean inf"), std::string::npos) << text.out;
  const Outcome json = run(content, {"--json"});
  EXPECT_EQ(nlohmann::json::parse(json.out)["error"]["out"]["max"], nullptr) << json.out;
}

// The model's tensors with one expected value changed by more than f16 rounding explains.
TEST_F(Run, AResultThatIsNotTheExpectedOne) {
  const auto changed = [](const char* name, double by) {
    Content content = read(ATTNRT_TESTS_DIR "/data/smollm2_layer18.safetensors");
    double value = 0;
    std::memcpy(&value, content.tensors.at(name).data() + 80, sizeof value);
    value += by;
    std::memcpy(content.tensors.at(name).data() + 80, &value, sizeof value);
    return content;
  };
  EXPECT_EQ(run(changed("expected", 1e-5), {"--lse"}).exit, 0);
  const Outcome out = run(changed("expected", 0.1), {"--json"});
  EXPECT_EQ(out.exit, 3);
  EXPECT_TRUE(
      out.err.starts_with("attnrt run: x.safetensors: out, element 10 of sequence 0, "
                          "query 0, head 0 is "))
      << out.err;
  EXPECT_EQ(std::count(out.err.begin(), out.err.end(), '\n'), 1);
  const auto document = nlohmann::json::parse(out.out);
  EXPECT_EQ(document["kind"], "run") << "the run itself succeeded";
  EXPECT_NE(out.err.find(document["error"]["off"].get<std::string>()), std::string::npos);
  EXPECT_TRUE(fs::exists(output())) << "the results can be looked at";
  const Outcome lse = run(changed("expected_lse", 0.1), {"--lse"});
  EXPECT_EQ(lse.exit, 3);
  EXPECT_NE(lse.err.find(": lse of sequence 0, query 10, head 0 is "), std::string::npos)
      << lse.err;
  EXPECT_EQ(run(changed("expected_lse", 0.1), {"--no-lse"}).exit, 0) << "lse was not computed";
}

TEST_F(Run, AWrongBackendIsFoundOut) {
  const fakes::Directory plugins;
  plugins.add("fake_bad_rough");
  const Outcome outcome =
      run(read(ATTNRT_TESTS_DIR "/data/smollm2_layer18_decode.safetensors"), {}, plugins.text());
  EXPECT_EQ(outcome.exit, 3) << outcome.out;
}

// So many rows that the bounds of some are those of others.
TEST_F(Run, LongInputsAreCompared) {
  Content content;
  content.add("q", f16, {1, 400, 4, 64}).add("k", f16, {1, 1000, 2, 64});
  content.add("v", f16, {1, 1000, 2, 64}, std::vector<uint16_t>(1000 * 2 * 64, 0x3C00));  // 1
  std::vector<double> ones(400 * 4 * 64, 1);
  content.add("expected", f64, {1, 400, 4, 64}, ones);
  EXPECT_EQ(run(content).exit, 0);
  for (const size_t at : {size_t{3}, ones.size() / 2, ones.size() - 1}) {
    auto wrong = ones;
    wrong[at] = 1.1;
    content.add("expected", f64, {1, 400, 4, 64}, wrong);
    EXPECT_EQ(run(content).exit, 3) << at;
  }
}

// An option that changes the problem asks another question than the file's answer is for.
TEST_F(Run, AnotherProblemThanTheFilesIsNotCompared) {
  Content content = plain();
  content.add("expected", f64, {1, 3, 4, 16}, std::vector<double>(192, 7)).say("causal", "true");
  EXPECT_EQ(run(content).exit, 3) << "the expected values are wrong";
  const Outcome text = run(content, {"--no-causal"});
  EXPECT_EQ(text.exit, 0) << text.err;
  EXPECT_NE(text.out.find("error    not compared: the options say causal=false, and the file's "
                          "expected values are for causal=true\n"),
            std::string::npos)
      << text.out;
  const auto not_compared = [&](const Words& words) {
    Words all = words;
    all.emplace_back("--json");
    const Outcome outcome = run(content, all);
    const auto error = nlohmann::json::parse(outcome.out)["error"];
    EXPECT_EQ(outcome.exit, error["not_compared"].is_null() ? 3 : 0);
    EXPECT_NE(error["not_compared"].is_null(), error["out"].is_null());
    return !error["not_compared"].is_null();
  };
  for (const Words& words :
       {Words{"--scale", "2"}, Words{"--softcap", "3"}, Words{"--window-left", "1"},
        Words{"--window-right", "1"}, Words{"--align", "top_left"}})
    EXPECT_TRUE(not_compared(words)) << words[0];
  for (const Words& words :
       {Words{"--causal"}, Words{"--lse"}, Words{"--deterministic"}, Words{"--batch-invariant"},
        Words{"--out-dtype", "f32"}, Words{"--softcap", "0"}, Words{"--window-left", "unbounded"},
        Words{"--scale", "0.35355338"}})
    EXPECT_FALSE(not_compared(words)) << words[0];
}

TEST_F(Run, OutputIsNeverThePolicy) {
  plain().write(directory.text() + "/x.safetensors");
  const std::string policy = directory.write("p.yaml", "schema: 1\n");
  const Words words = {"run", "--input", "x.safetensors", "--output", "./p.yaml"};
  const Outcome environment = attnrt_in(directory, words, {{"ATTNRT_POLICY", policy}});
  expect_refusal(environment, 2);
  EXPECT_NE(environment.err.find("--output ./p.yaml is the file of ATTNRT_POLICY"),
            std::string::npos)
      << environment.err;
  Words option = words;
  option.insert(option.end(), {"--policy", "p.yaml"});
  expect_refusal(attnrt_in(directory, option), 2);
  EXPECT_EQ(fakes::read_file(policy), "schema: 1\n");
}

// The plugin changes the working directory as soon as it is opened.
TEST_F(Run, APluginDoesNotMoveTheOutput) {
  const fakes::Directory plugins;
  plugins.add("fake_chdir");
  plain().write(directory.text() + "/x.safetensors");
  const Outcome outcome = attnrt_in(
      directory,
      {"run", "--input", "x.safetensors", "--output", "y.safetensors", "--plugins", plugins.text()},
      {{"ATTNRT_ADMISSION", "off"}});  // a probe would refuse the plugin
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_TRUE(fs::exists(output()));
}

TEST_F(Run, OutputIsNeverTheInput) {
  plain().write(directory.text() + "/x.safetensors");
  fs::create_symlink("x.safetensors", directory.path() / "link");
  fs::create_hard_link(directory.path() / "x.safetensors", directory.path() / "other_name");
  const std::string before = fakes::read_file(directory.text() + "/x.safetensors");
  for (const char* name : {"x.safetensors", "./x.safetensors", "link", "other_name"}) {
    const Outcome outcome =
        attnrt_in(directory, {"run", "--input", "x.safetensors", "--output", name});
    expect_refusal(outcome, 2);
    EXPECT_NE(outcome.err.find("is the file of --input x.safetensors"), std::string::npos)
        << outcome.err;
    EXPECT_EQ(fakes::read_file(directory.text() + "/x.safetensors"), before);
  }
  EXPECT_EQ(files(), 3U);
}

TEST_F(Run, AMisspeltWordOfTheMetadataIsAWarning) {
  const Outcome outcome = run(plain().say("casual", "true").say("prompt", "What is it?"));
  EXPECT_EQ(outcome.exit, 0);
  EXPECT_EQ(outcome.err,
            "attnrt: warning: x.safetensors: __metadata__ casual: unknown word, ignored; did you "
            "mean causal?\n");
}

TEST_F(Run, WithoutOutputNothingIsWritten) {
  plain().write(directory.text() + "/x.safetensors");
  const Outcome outcome =
      attnrt_in(directory, {"run", "--input", "x.safetensors", "--repeat", "3"});
  ASSERT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("(median of 3, fastest"), std::string::npos) << outcome.out;
  EXPECT_EQ(files(), 1U);
}

TEST_F(Run, TextAndJson) {
  const fakes::Directory plugins;
  for (const char* name : {"fake_full", "fake_minimal", "fake_versions-1.0.0"}) plugins.add(name);
  Content content = plain();
  content.add("expected", f64, {1, 3, 4, 16}).say("causal", "true");
  const auto golden = [&](const std::string& name, const Words& words) {
    const Outcome outcome = run(content, words, plugins.text());
    EXPECT_EQ(outcome.exit, 0);
    EXPECT_EQ(outcome.err, "");
    EXPECT_TRUE(testing::matches_golden("cli/" + name, normalised(outcome.out, plugins)));
  };
  golden("run.txt", {"--causal", "--explain", "--backend", "fake_full"});
  golden("run.json", {"--causal", "--lse", "--json"});
}

// The exit code of a backend that fails depends on its status, and nothing is written.
TEST_F(Run, FailingBackends) {
  const std::pair<const char*, int> cases[] = {
      {"fake_plan_unsupported", 1},     {"fake_plan_out_of_memory", 3},
      {"fake_plan_internal", 3},        {"fake_plan_invalid_argument", 2},
      {"fake_plan_device_lost", 3},     {"fake_run_unsupported", 1},
      {"fake_run_out_of_memory", 3},    {"fake_run_internal", 3},
      {"fake_run_invalid_argument", 2}, {"fake_run_device_lost", 3},
      {"fake_run_nonsense", 3},         {"fake_open_fails", 1}};
  std::string golden;
  for (const auto& [name, exit] : cases) {
    SCOPED_TRACE(name);
    const fakes::Directory plugins;
    plugins.add(name);
    const Outcome outcome = run(plain(), {}, plugins.text());
    EXPECT_EQ(outcome.exit, exit);
    EXPECT_EQ(outcome.out, "");
    EXPECT_NE(outcome.err.find("attnrt run: "), std::string::npos) << outcome.err;
    EXPECT_EQ(files(), 1U);
    golden += normalised(outcome.err, plugins);
  }
  EXPECT_TRUE(testing::matches_golden("cli/failing_backends.txt", golden));
}

TEST_F(Run, BadOutputs) {
  plain().write(directory.text() + "/x.safetensors");
  std::string golden;
  for (const char* name : {"", ".", "absent/y", "absent/", "x.safetensors/y", "/dev/null"}) {
    const Outcome outcome =
        attnrt_in(directory, {"run", "--input", "x.safetensors", "--output", name});
    expect_refusal(outcome, 2);
    golden += outcome.err;
  }
  EXPECT_TRUE(testing::matches_golden("cli/bad_outputs.txt", golden));
  EXPECT_EQ(files(), 1U);
}

struct Bad {
  const char* name;
  Content content;
  Words words;
};

std::vector<Bad> bad_inputs() {
  std::vector<Bad> cases;
  const auto with = [&](const char* name, const auto& change, Words words = {}) {
    Content content = plain();
    change(content);
    cases.push_back({name, std::move(content), std::move(words)});
  };
  const auto replaced = [&](const char* name, const std::string& tensor, attnrt_dtype dtype,
                            std::vector<int64_t> shape) {
    with(name, [&](Content& content) { content.add(tensor, dtype, shape); });
  };
  const auto said = [&](const char* name, const std::string& key, const std::string& value) {
    with(name, [&](Content& content) { content.say(key, value); });
  };
  const auto flagged = [&](const char* name, Words words) {
    with(
        name, [](Content&) {}, std::move(words));
  };

  with("no tensors", [](Content& content) { content.tensors.clear(); });
  with("no v", [](Content& content) { content.tensors.erase("v"); });
  replaced("a tensor that is not known", "maks", boolean, {1});
  replaced("batch of k", "k", f16, {2, 5, 2, 8});
  replaced("head_dim of k", "k", f16, {1, 5, 2, 4});
  replaced("batch of v", "v", f16, {3, 5, 2, 8});
  replaced("keys of v", "v", f16, {1, 4, 2, 8});
  replaced("heads of v", "v", f16, {1, 5, 4, 8});
  replaced("heads of q", "q", f16, {1, 3, 5, 8});
  with("heads before rows", [](Content& content) {
    content.add("q", f16, {1, 4, 1, 8}).add("k", f16, {1, 2, 5, 8}).add("v", f16, {1, 2, 5, 16});
  });
  replaced("no heads", "q", f16, {1, 3, 0, 8});
  replaced("no head_dim_v", "v", f16, {1, 5, 2, 0});
  replaced("three dimensions", "q", f16, {3, 4, 8});
  replaced("dtype of k", "k", bf16, {1, 5, 2, 8});
  replaced("dtype of all", "q", f64, {1, 3, 4, 8});
  replaced("dtype of nothing known", "q", int32, {1, 3, 4, 8});
  replaced("mask of another size", "mask", boolean, {1, 4, 3, 6});
  replaced("mask of integers", "mask", int32, {1, 4, 3, 5});
  replaced("mask of doubles", "mask", f64, {1, 4, 3, 5});
  replaced("too few slopes", "alibi_slopes", f32, {2});
  replaced("slopes in half precision", "alibi_slopes", f16, {4});
  replaced("sinks in two dimensions", "sinks", f32, {1, 4});
  replaced("lengths as numbers", "kv_lengths", f32, {1});
  replaced("lengths of another batch", "kv_lengths", int32, {2});
  replaced("offsets with four dimensions of q", "offsets_q", int32, {2});
  with("packed q of one dimension",
       [](Content& content) {
         content.add("q", f16, {8}).add("offsets_q", int32, {2}).add("offsets_kv", int32, {2});
       },
       {"--lse"});
  with("packed q without heads", [](Content& content) {
    content.add("q", f16, {3, 0, 8}).add("k", f16, {5, 2, 8}).add("v", f16, {5, 2, 16});
    content.add("offsets_q", int32, {2}).add("offsets_kv", int32, {2});
  });
  replaced("pages without lengths", "page_table", int32, {1, 1});
  replaced("expected of another shape", "expected", f64, {1, 3, 4, 8});
  replaced("expected in single precision", "expected", f32, {1, 3, 4, 16});
  with("expected_lse of another shape",
       [](Content& content) {
         content.add("expected_lse", f64, {1, 3, 4});
       },
       {"--lse"});
  with("a length above the keys",
       [](Content& content) { content.add<int32_t>("kv_lengths", int32, {1}, {6}); });
  with("a negative length",
       [](Content& content) { content.add<int32_t>("kv_lengths", int32, {1}, {-1}); });
  with("overflowing results", [](Content& content) {
    content.add("q", f16, {int64_t{1} << 32, int64_t{1} << 31, 0, 8})
        .add("k", f16, {int64_t{1} << 32, 0, 2, 8});
    content.add("v", f16, {int64_t{1} << 32, 0, 2, 8});
  });
  said("metadata causal", "causal", "yes");
  said("metadata scale", "scale", "1/8");
  said("metadata align", "align", "left");
  said("metadata window", "window_left", "-7");
  said("metadata of two lines", "causal", "true\nfalse");
  flagged("infinite scale", {"--scale", "inf"});
  flagged("negative softcap", {"--softcap", "-1"});
  flagged("overflowing window", {"--window-right", "9223372036854775808"});
  flagged("fractional window", {"--window-left", "1.5"});
  flagged("unknown align", {"--align", "top_right"});
  return cases;
}

TEST_F(Run, BadInputs) {
  std::string golden;
  for (const Bad& bad : bad_inputs()) {
    SCOPED_TRACE(bad.name);
    const Outcome outcome = run(bad.content, bad.words);
    expect_refusal(outcome, 2);
    EXPECT_EQ(files(), 1U);
    golden += std::string(bad.name) + "\n    " + outcome.err;
  }
  directory.write("x.safetensors", "not a tensor file");
  golden += "text\n    " + run(Words{}).err;
  fs::remove(directory.path() / "x.safetensors");
  golden += "absent\n    " + run(Words{}).err;
  EXPECT_TRUE(testing::matches_golden("cli/bad_inputs.txt", golden));
  EXPECT_EQ(files(), 0U);
}

}  // namespace
}  // namespace attnrt::cli
