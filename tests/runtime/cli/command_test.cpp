// tests/runtime/cli/command_test.cpp: list, explain, policy, check, and bad usage
#include "support/command.hpp"

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>

#include <regex>

namespace attnrt::cli {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

// Good and broken plugins, two versions of one plugin, and a device whose memory is host memory.
class Command : public ::testing::Test {
 protected:
  Command() {
    for (const char* name : {"fake_minimal", "fake_versions-1.0.0", "fake_versions-1.2.0",
                             "fake_rocm", "fake_abi_2", "fake_open_fails", "fake_other_name"})
      directory.add(name);
    directory.write("not_a_library.so", "#!/bin/sh\n");
    directory.write("notes.txt", "no plugin, and not looked at\n");
    directory.write("good.yaml", R"(schema: 1
backends:
  fake_minimal: {priority: 40}
  fake_versions: {priority: 30, version: "<1.2", only: {head_dim: {max: 128}},
                  options: {note: fast}}
  fake_open_fails: {enabled: false}
rules:
  - {name: tiny queries, when: {seq_q: {max: 4}}, prefer: [fake_versions]}
  - {name: no wide heads, when: {head_dim: {min: 129}}, deny: [fake_minimal]}
on_fallback: allow
)");
  }
  Outcome attnrt(Words words, const std::map<std::string, std::string>& environment = {}) const {
    return attnrt_in(directory, std::move(words), environment);
  }
  // Runs with the directory's plugins and its good policy.
  Outcome attnrt_here(Words words) const {
    words.insert(words.end(), {"--plugins", directory.text(), "--policy", "good.yaml"});
    return attnrt(std::move(words));
  }
  void expect_golden(const std::string& name, const Outcome& outcome, int exit) const {
    EXPECT_EQ(outcome.exit, exit) << outcome.err;
    // The warnings about broken plugins are part of the golden output.
    const bool warned = !outcome.err.empty() && name.ends_with(".txt");
    const std::string text = outcome.out + (warned ? "on stderr:\n" + outcome.err : "");
    EXPECT_TRUE(testing::matches_golden("cli/" + name, normalised(text, directory)));
  }

  const fakes::Directory directory;
};

TEST_F(Command, List) {
  directory.add("fake_no_devices");
  expect_golden("list.txt", attnrt_here({"list"}), 0);
  expect_golden("list.json", attnrt_here({"list", "--json"}), 0);
}

TEST_F(Command, ListShowsWhatAPluginSaysOfItsDevices) {
  fakes::Directory plugins;
  plugins.add("fake_rocm_two");
  const std::string text = attnrt({"list", "--plugins", plugins.text()}).out;
  EXPECT_NE(text.find("note: both are fakes"), std::string::npos) << text;
  const std::string json = attnrt({"list", "--json", "--plugins", plugins.text()}).out;
  EXPECT_NE(json.find("\"both are fakes\""), std::string::npos) << json;
}

// Why a rule is left out is shown where a plugin needed it, and only there.
TEST_F(Command, ListShowsWhyAPluginIsTrusted) {
  const fakes::Directory plugins;
  chmod(plugins.add("fake_full").c_str(), 0646);
  plugins.add("fake_minimal");
  const auto list = [&](const std::string& policy, const std::string& option) {
    directory.write("trust.yaml", policy);
    Words words{"list", "--plugins", plugins.text(), "--policy", "trust.yaml"};
    if (!option.empty()) words.push_back(option);
    const Outcome outcome = attnrt(words);
    EXPECT_EQ(outcome.exit, 0) << outcome.err;
    return fakes::replaced(outcome.out, plugins.text(), "PLUGINS");
  };
  const std::string refused = list("schema: 1\n", "");
  EXPECT_NE(refused.find("not trusted: the file PLUGINS/fake_full.so (mode 0646, "),
            std::string::npos)
      << refused;
  EXPECT_NE(refused.find("fake_minimal  1.0.0"), std::string::npos) << refused;
  const std::string policy = "trust: {allow: {world_writable: \"one team's machine\"}}\n";
  for (const char* option : {"", "--json"}) {
    const std::string allowed = list(policy, option);
    const std::string reason = "(trust.allow.world_writable: one team's machine)";
    const size_t first = allowed.find(reason);
    EXPECT_NE(first, std::string::npos) << allowed;
    EXPECT_EQ(allowed.find(reason, first + 1), std::string::npos) << allowed;
    EXPECT_EQ(allowed.find("not trusted"), std::string::npos) << allowed;
  }
  const std::string json = list(policy, "--json");
  EXPECT_NE(json.find("\"libc.so.6\""), std::string::npos) << json;
  EXPECT_NE(json.find("\"signed_by\": null"), std::string::npos) << json;
  // The found plugins are judged by the policy; a file that is named is not.
  const Outcome verify = attnrt({"verify", "--backend", "fake_full", "--rule", "ABI-1", "--plugins",
                                 plugins.text(), "--policy", "trust.yaml"});
  EXPECT_EQ(verify.exit, 0) << verify.out << verify.err;
  const Outcome all = attnrt({"verify", "--rule", "ABI-1", "--plugins", plugins.text()});
  expect_refusal(all, 2);
  EXPECT_NE(all.err.find("not trusted: "), std::string::npos) << all.err;
  EXPECT_EQ(
      attnrt({"verify", "--rule", "ABI-1", "--plugin", plugins.text() + "/fake_full.so"}).exit, 0);
}

// A copy that is setuid, started by somebody else with an environment of his choice.
TEST_F(Command, APrivilegedProcessIgnoresTheEnvironment) {
  struct statvfs file_system {};
  statvfs(directory.text().c_str(), &file_system);
  if (geteuid() != 0 || (file_system.f_flag & ST_NOSUID) != 0 ||
      prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 0)
    GTEST_SKIP() << "only root makes a setuid file, and not everywhere is it one";
  const std::string copy = directory.copy(ATTNRT_COMMAND, "attnrt");
  ASSERT_EQ(chown(copy.c_str(), 12345, 12345), 0);
  ASSERT_EQ(chmod(directory.text().c_str(), 0755), 0);
  for (const bool is_setuid : {false, true}) {
    ASSERT_EQ(chmod(copy.c_str(), is_setuid ? 04755 : 0755), 0);
    const std::string out = directory.text() + "/out";
    const std::string line =
        "setpriv --reuid 23456 --regid 23456 --clear-groups env ATTNRT_PLUGIN_PATH=/no/such/place "
        "ATTNRT_BACKEND=mine HOME=/no/such/home '" +
        copy + "' policy >'" + out + "' 2>/dev/null";
    ASSERT_EQ(std::system(line.c_str()), 0);
    const std::string text = fakes::read_file(out);
    EXPECT_EQ(text.find("/no/such") == std::string::npos, is_setuid) << text;
    EXPECT_EQ(text.find("mine") == std::string::npos, is_setuid) << text;
  }
}

// A command that was found through PATH cannot tell its directory from argv[0], and must not take
// the current directory for it.
TEST_F(Command, ListFindsTheInstalledPluginsWhateverItsName) {
  (void)attnrt_in(fakes::Directory(), {"list", "--wait"});  // so that none is waiting below
  fs::create_directories(directory.path() / "attnrt/plugins");
  // Without how long ago probes were made, which changes between two calls.
  const auto without_age = [](const std::string& out) {
    return std::regex_replace(out, std::regex(" +(loads|conforms), [0-9]+ [a-z]+ ago +"), " $1 ");
  };
  const std::string expected = without_age(attnrt({"list"}).out);
  EXPECT_NE(expected.find("cpu.so"), std::string::npos) << expected;
  const Outcome found = attnrt_in(directory, {"list"}, {}, nullptr, "attnrt");
  EXPECT_EQ(without_age(found.out), expected);
}

// list warns on stderr only about what no row says. Other commands warn about broken plugins, too.
TEST_F(Command, ListDoesNotRepeatItsRowsAsWarnings) {
  const std::string plugins = directory.text() + ":" + directory.text() + "/absent";
  const Outcome list = attnrt({"list", "--plugins", plugins});
  EXPECT_NE(list.out.find("the manifest says name fake_alias"), std::string::npos) << list.out;
  EXPECT_EQ(list.err, "attnrt: warning: plugin directory " + directory.text() +
                          "/absent: cannot be read: No such file or directory\n");
  const Outcome explain = attnrt({"explain", "head_dim=64", "--plugins", plugins});
  EXPECT_NE(
      explain.err.find("attnrt: warning: load: " + directory.text() + "/fake_other_name.so: "),
      std::string::npos)
      << explain.err;
}

TEST_F(Command, NamesWithLineEndsStayInTheirLine) {
  const fakes::Directory odd;
  odd.write("two\nlines.so", "x");
  const Outcome list = attnrt({"list", "--plugins", odd.text() + ":" + odd.text() + "/not\nhere"});
  EXPECT_NE(list.out.find("two\\nlines.so"), std::string::npos) << list.out;
  EXPECT_EQ(std::count(list.out.begin(), list.out.end(), '\n'), 3) << list.out;
  EXPECT_EQ(std::count(list.err.begin(), list.err.end(), '\n'), 1) << list.err;
}

TEST_F(Command, ListOfNothing) {
  const fakes::Directory empty;
  const Outcome outcome = attnrt({"list", "--plugins", empty.text()});
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("none"), std::string::npos) << outcome.out;
}

TEST_F(Command, Explain) {
  const std::string words =
      "dtype=f16 heads_q=9 heads_kv=3 seq_q=128 seq_kv=128 head_dim=64 causal=true";
  expect_golden("explain.txt", attnrt_here({"explain", words}), 0);
  expect_golden("explain.json", attnrt_here({"explain", words, "--json"}), 0);
  expect_golden("explain_preferred.txt", attnrt_here({"explain", "seq_q=1", "seq_kv=9"}), 0);
  // Words may stand on lines of their own, as in a problem that was pasted.
  EXPECT_EQ(attnrt_here({"explain", "seq_q=1\nseq_kv=9"}).out,
            attnrt_here({"explain", "seq_q=1 seq_kv=9"}).out);
  expect_golden("explain_denied.txt", attnrt_here({"explain", "head_dim=256", "head_dim_v=256"}),
                1);
  expect_golden("explain_elsewhere.txt",
                attnrt_here({"explain", words, "device=rocm", "arch=gfx1100"}), 0);
  expect_golden("explain_no_such_arch.txt",
                attnrt_here({"explain", words, "device=rocm", "arch=gfx942"}), 1);
  expect_golden("explain_forced.txt", attnrt_here({"explain", words, "--backend", "fake_versions"}),
                0);
  expect_golden("explain_unknown_name.txt",
                attnrt_here({"explain", words, "--backend", "fake_minimum"}), 1);
}

TEST_F(Command, Policy) {
  expect_golden("policy.txt", attnrt_here({"policy"}), 0);
  expect_golden("policy.json", attnrt_here({"policy", "--json"}), 0);
}

TEST_F(Command, CheckPolicies) {
  directory.write("bad_key.yaml", "schema: 1\nbackends:\n  cpu: {priorty: 3}\n");
  directory.write("twice.yaml", "schema: 1\nthreads: 1\nthreads: 2\n");
  directory.write("no_yaml.yaml", "a: [1\n");
  directory.write("never.yaml",
                  "schema: 1\nrules:\n  - {when: {head_dim: {min: 9, max: 3}}, deny: [cpu]}\n");
  directory.write("long.yaml", "# " + std::string(2 << 20, '-') + "\n");
  directory.write("empty.yaml", "");
  directory.write("many.yaml",
                  "staging: maybe\nrules:\n  - {when: {head_dim: wide, dtyp: f16}, prefer: [C]}\n  "
                  "- word\nthread: 4\n"
                  "backends: {cpu: {priority: high, enabld: true}}\nthreads: -1\n");
  expect_golden("check_good.txt", attnrt({"check", "good.yaml", "empty.yaml"}), 0);
  expect_golden("check_warning.txt", attnrt({"check", "never.yaml"}), 0);
  const Words files = {"check",        "good.yaml",  "bad_key.yaml", "twice.yaml",
                       "no_yaml.yaml", "never.yaml", "long.yaml",    "many.yaml"};
  expect_golden("check.txt", attnrt(files), 1);
  Words json = files;
  json.emplace_back("--json");
  expect_golden("check.json", attnrt(json), 1);
  // The environment does not change what is wrong with a policy.
  EXPECT_EQ(
      attnrt({"check", "good.yaml"}, {{"ATTNRT_POLICY", "absent.yaml"}, {"ATTNRT_LOG", "loud"}})
          .exit,
      0);
}

TEST_F(Command, OptionsStandAnywhere) {
  const std::string expected = attnrt_here({"list", "--json"}).out;
  const Words places[] = {
      {"--json", "--plugins", directory.text(), "--policy", "good.yaml", "list"},
      {"--policy", "good.yaml", "list", "--plugins", directory.text(), "--json"},
      {"list", "--policy=good.yaml", "--json", "--plugins=" + directory.text()}};
  for (const Words& words : places) EXPECT_EQ(attnrt(words).out, expected);
}

TEST_F(Command, TheEnvironmentCountsAndOptionsWin) {
  const std::string words = "dtype=f16 seq_q=128 head_dim=64";
  const std::string expected = attnrt_here({"explain", words}).out;
  const std::map<std::string, std::string> here = {{"ATTNRT_PLUGIN_PATH", directory.text()},
                                                   {"ATTNRT_POLICY", "good.yaml"}};
  EXPECT_EQ(attnrt({"explain", words}, here).out, expected);
  std::map<std::string, std::string> elsewhere = {{"ATTNRT_PLUGIN_PATH", "/nowhere"},
                                                  {"ATTNRT_POLICY", "absent.yaml"}};
  EXPECT_EQ(
      attnrt({"explain", words, "--plugins", directory.text(), "--policy", "good.yaml"}, elsewhere)
          .out,
      expected);

  auto debugged = here;
  debugged["ATTNRT_LOG"] = "debug";
  const Outcome told = attnrt({"explain", words}, debugged);
  EXPECT_EQ(told.out, expected);
  EXPECT_NE(told.err.find("attnrt: debug: config: policy good.yaml\n"), std::string::npos)
      << told.err;
  EXPECT_NE(told.err.find("attnrt: debug: load: " + directory.text() +
                          "/fake_minimal.so: fake_minimal 1.0.0, sha256 "),
            std::string::npos)
      << told.err;

  auto forced = here;
  forced["ATTNRT_BACKEND"] = "fake_versions";
  EXPECT_NE(attnrt({"explain", words}, forced).out.find("decision  fake_versions 1.0.0"),
            std::string::npos);
  EXPECT_NE(attnrt({"explain", words, "--backend", "fake_minimal"}, forced)
                .out.find("decision  fake_minimal"),
            std::string::npos);
  auto disabled = here;
  disabled["ATTNRT_DISABLE"] = "fake_*";
  EXPECT_EQ(attnrt({"explain", words}, disabled).exit, 1);
}

TEST_F(Command, BadUsage) {
  directory.write("bad.yaml", "schema: 1\nbackend: cpu\n");
  const Words cases[] = {
      {},
      {"lst"},
      {"--nonsense"},
      {"list", "more"},
      {"list", "--nonsense"},
      {"list", "--polcy", "good.yaml"},
      {"--plugin", ".", "list"},
      {"run", "--input", "x", "--outptu=y"},
      {"run", "--input", "x", "--no-casual"},
      {"bench", "--seqq", "8"},
      {"list", "--policy"},
      {"list", "--policy", "absent.yaml"},
      {"list", "--policy", "bad.yaml"},
      {"policy", "--policy", "bad.yaml"},
      {"explain"},
      {"explain", "head_dim"},
      {"explain", "head_dims=64"},
      {"explain", "head_dim=64 head_dim=32"},
      {"explain", "head_dim=-64"},
      {"explain", "head_dim=9223372036854775808"},
      {"explain", "head_dim=64.5"},
      {"explain", "dtype=f8"},
      {"explain", "causal=yes"},
      {"explain", "window_left=-3"},
      {"explain", "window_left=-9223372036854775809"},
      {"explain", "window_right=1.5"},
      {"explain", "device=tpu"},
      {"explain", "heads_q=8 heads_kv=3"},
      {"explain", "batch=4294967296 seq_q=4294967296 heads_q=4294967296"},
      {"explain", "scale=nan"},
      {"explain", "varlen=true mask=boolean"},
      {"explain", "arch=gfx\n1100"},
      {"explain", "arch=gfx1100"},
      {"explain", "head_dim=64", "--plugins", "absent:also_absent"},
      {"verify", "--plugin", "absent.so"},
      {"verify", "--plugin", "."},
      {"verify", "--plugin", "notes.txt"},
      {"check", "good.yaml", "--policy", "good.yaml"},
      {"--plugins", ".", "check", "good.yaml"},
      {"check"},
      {"check", "absent.yaml"},
      {"check", "."},
      {"check", "good.yaml", "absent.yaml"},
      {"run"},
      {"run", "--input"},
      {"run", "--input", "x", "--repeat", "0"},
      {"run", "--input", "x", "--repeat", "many"},
      {"run", "--input", "x", "--causal=maybe"},
      {"--json=maybe", "list"},
      {"bench", "--cold=no"},
  };
  std::string golden;
  for (const Words& words : cases) {
    std::string line = "attnrt";
    for (const std::string& word : words)
      line += word.find_first_of(" \n") == std::string::npos ? " " + word : " \"" + word + '"';
    SCOPED_TRACE(line);
    const Outcome outcome = attnrt(words);
    expect_refusal(outcome, 2);
    golden += "$ " + line + "\n" + outcome.err;
  }
  EXPECT_TRUE(testing::matches_golden("cli/bad_usage.txt", normalised(golden, directory)));
}

// A policy without a directory in its name is in the current directory, and every message calls it
// by the name that was given.
TEST_F(Command, APolicyInTheCurrentDirectory) {
  directory.write("here.yaml", "schema: 1\nplugins: {directories: [absent]}\nunlisted: deny\n");
  directory.write("wrong.yaml", "schema: 1\nthread: 4\n");
  for (const std::string folder : {"", "./"}) {
    const Outcome checked = attnrt({"check", folder + "here.yaml"});
    EXPECT_EQ(checked.exit, 0) << checked.out;
    const Outcome policy = attnrt({"policy", "--policy", folder + "here.yaml"});
    EXPECT_TRUE(policy.out.starts_with("policy " + folder + "here.yaml\n")) << policy.out;
    EXPECT_NE(policy.out.find("/absent]"), std::string::npos) << policy.out;
    EXPECT_TRUE(
        attnrt({"check", folder + "wrong.yaml"}).out.starts_with(folder + "wrong.yaml:2:1: "));
    EXPECT_TRUE(attnrt({"list", "--policy", folder + "wrong.yaml"})
                    .err.starts_with("attnrt list: " + folder + "wrong.yaml:2:1: "));
  }
}

TEST_F(Command, ErrorsAsJson) {
  const Outcome outcome = attnrt({"list", "--policy", "absent.yaml", "--json"});
  EXPECT_EQ(outcome.exit, 2);
  EXPECT_TRUE(testing::matches_golden("cli/error.json", outcome.out));
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
}

TEST_F(Command, OutputThatCannotBeWritten) {
  const Outcome outcome =
      attnrt_in(directory, {"list", "--plugins", "."}, {{"ATTNRT_LOG", "off"}}, "/dev/full");
  EXPECT_EQ(outcome.exit, 3);
  EXPECT_EQ(outcome.err, "attnrt list: cannot write the output to stdout\n");
}

TEST_F(Command, HelpNamesEveryCommandAndExitCode) {
  const Outcome help = attnrt({"--help"});
  EXPECT_EQ(help.exit, 0);
  EXPECT_EQ(help.err, "");
  for (const char* word :
       {"list", "explain", "run", "check", "policy", "verify", "bench", "stats"}) {
    EXPECT_NE(help.out.find(std::string("\n  ") + word), std::string::npos) << word;
    const Outcome own = attnrt({word, "--help"});
    EXPECT_EQ(own.exit, 0) << word;
    EXPECT_NE(own.out.find("Usage: attnrt " + std::string(word)), std::string::npos) << own.out;
    EXPECT_NE(own.out.find("\n  --json "), std::string::npos) << own.out;
    const bool takes_them = std::string_view(word) != "check" && std::string_view(word) != "stats";
    EXPECT_EQ(own.out.find("\n  --policy ") != std::string::npos, takes_them) << own.out;
    EXPECT_EQ(own.out.find("\n  --plugins ") != std::string::npos, takes_them) << own.out;
  }
  for (const char* code : {"\n  0  ", "\n  1  ", "\n  2  ", "\n  3  "})
    EXPECT_NE(help.out.find(code), std::string::npos);
  const Outcome version = attnrt({"--version"});
  EXPECT_EQ(version.exit, 0);
  EXPECT_TRUE(version.out.starts_with("attnrt " ATTNRT_VERSION)) << version.out;
}

}  // namespace
}  // namespace attnrt::cli
