// tests/runtime/trust_test.cpp: who may write plugin files: every rule by facts, and real files
#include "trust.hpp"

#include <elf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "discover.hpp"
#include "fakes/fakes.hpp"
#include "own_file.hpp"
#include "support/minisign.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using fakes::Directory;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

constexpr mode_t kFile = S_IFREG, kFolder = S_IFDIR, kLink = S_IFLNK;
constexpr uid_t kUser = 1000, kOther = 1001, kInstaller = 1002;
constexpr gid_t kGroup = 50;
const TrustedUsers kUsers{kUser, kInstaller, "/opt/attnrt/lib/libattnrt.so.0"};

// The checks that fail, in order.
std::vector<std::string> failing(const PathFacts& facts, const TrustedUsers& users = kUsers) {
  std::vector<std::string> checks;
  for (const Objection& objection : objections_to(facts, users))
    checks.emplace_back(objection.check);
  return checks;
}

TEST(TrustRules, OwnersAreRootTheProcessAndWhoOwnsTheLibrary) {
  for (const mode_t type : {kFile, kFolder, kLink}) {
    for (const uid_t owner : {uid_t{0}, kUser, kInstaller})
      EXPECT_THAT(failing({"/srv/x", owner, kGroup, type | 0755}), IsEmpty()) << owner;
    EXPECT_THAT(failing({"/srv/x", kOther, kOther, type | 0755}), ElementsAre("foreign_owner"));
    EXPECT_THAT(failing({"/srv/x", kInstaller, 0, type | 0755}, {kUser, {}, ""}),
                ElementsAre("foreign_owner"))
        << "nobody knows the library's owner";
  }
}

TEST(TrustRules, WhoMayWrite) {
  struct Row {
    uid_t owner;
    gid_t group;
    mode_t mode;
    bool has_access_list;
    std::vector<std::string> failing;
  };
  const std::vector<std::string> none, group{"group_writable"}, world{"world_writable"},
      both{"world_writable", "group_writable"};
  const Row rows[] = {
      {0, 0, kFile | 0644, false, none},
      {0, 0, kFile | 0664, false, none},          // the group is the owner's own
      {kUser, kUser, kFile | 0664, false, none},  // the same
      {kUser, kUser, kFile | 0664, true, group},  // the group's bits are the list's mask
      {kUser, kUser, kFile | 0644, true, none},   // the mask lets nobody write
      {kUser, kGroup, kFile | 0664, false, group},
      {0, kGroup, kFile | 0664, false, group},
      {kUser, 0, kFile | 0664, false, group},
      {0, 0, kFile | 0646, false, world},
      {0, 0, kFile | 0666, false, world},
      {0, kGroup, kFile | 0666, false, both},
      {0, kGroup, kFile | 01666, false, both},  // sticky means nothing on a file
      {0, 0, kFolder | 0755, false, none},
      {0, 0, kFolder | 0775, false, none},
      {0, kGroup, kFolder | 0775, false, group},
      {0, kGroup, kFolder | 02775, false, group},
      {0, kGroup, kFolder | 01775, false, none},  // sticky
      {0, 0, kFolder | 0777, false, world},
      {0, 0, kFolder | 01777, false, none},
      {kUser, kUser, kFolder | 01777, false, none},
      {kOther, kOther, kFolder | 01777, false, {"foreign_owner"}},  // sticky is its owner's word
      {0, 0, kLink | 0777, false, none},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(failing({"/srv/x", row.owner, row.group, row.mode, row.has_access_list}), row.failing)
        << fmt::format("{}:{} {:o} {}", row.owner, row.group, row.mode, row.has_access_list);
  }
}

TEST(TrustRules, SetIdFiles) {
  EXPECT_THAT(failing({"/srv/x.so", 0, 0, kFile | 04755}), ElementsAre("set_id"));
  EXPECT_THAT(failing({"/srv/x.so", 0, 0, kFile | 02755}), ElementsAre("set_id"));
  EXPECT_THAT(failing({"/srv", 0, 0, kFolder | 02755}), IsEmpty());
}

TEST(TrustRules, FoldersAboveTheLibraryAreNotJudged) {
  for (const char* above : {"/", "/opt", "/opt/attnrt", "/opt/attnrt/lib"})
    EXPECT_THAT(failing({above, kOther, kOther, kFolder | 0777}), IsEmpty()) << above;
  for (const char* beside : {"/opt/att", "/opt/attnrt/lib/attnrt", "/opt/attnrt/lib2", "/srv"})
    EXPECT_THAT(failing({beside, kOther, kGroup, kFolder | 0777}), SizeIs(3)) << beside;
  EXPECT_THAT(failing({"/opt", kOther, kOther, kLink | 0777}), SizeIs(1)) << "a link is not above";
  EXPECT_THAT(failing({"/", kOther, kOther, kFolder | 0755}, {kUser, {}, ""}), SizeIs(1));
}

TEST(TrustRules, MessagesSayWhatIsWrongAndWhatToDo) {
  const auto refusal = [](const PathFacts& facts) {
    return overruled(objections_to(facts, kUsers), {}).error().message;
  };
  EXPECT_EQ(refusal({"/srv/x.so", kOther, 100, kFile | 0644}),
            "not trusted: the file /srv/x.so (mode 0644, uid 1001, gid 100) belongs to another "
            "user; expected root, uid 1000 (this process), uid 1002 (who owns "
            "/opt/attnrt/lib/libattnrt.so.0); chown it, or give a reason under "
            "trust.allow.foreign_owner");
  EXPECT_EQ(refusal({"/srv", 0, 50, kFolder | 02775}),
            "not trusted: the folder /srv (mode 2775, uid 0, gid 50) may be written by its group; "
            "expected only by its owner; chmod g-w /srv, or give a reason under "
            "trust.allow.group_writable");
  EXPECT_THAT(refusal({"/srv", 0, 0, kFolder | 0777}),
              AllOf(HasSubstr("may be written by everybody"), HasSubstr("chmod o-w /srv")));
  EXPECT_THAT(refusal({"/x.so", 0, 0, kFile | 04755}), HasSubstr("chmod ug-s /x.so"));
  EXPECT_THAT(refusal({"/x.so", 0, 0, kFile | 0664, true}),
              HasSubstr("may be written by those in its access control list"));
}

TEST(TrustRules, APolicyOverrulesByNameAndGivesItsReason) {
  TrustPolicy policy;
  policy.allow["group_writable"] = {"one team", "policy.yaml:2:3"};
  const PathFacts both{"/srv/x.so", 0, 50, kFile | 0666}, group{"/srv/x.so", 0, 50, kFile | 0664};
  EXPECT_THAT(overruled(objections_to(both, kUsers), policy).error().message,
              HasSubstr("trust.allow.world_writable"));
  const auto relaxed = overruled(objections_to(group, kUsers), policy).value();
  ASSERT_THAT(relaxed, SizeIs(1));
  EXPECT_EQ(relaxed[0].text,
            "the file /srv/x.so (mode 0664, uid 0, gid 50) may be written by its group "
            "(trust.allow.group_writable: one team)");
  EXPECT_THAT(overruled({}, policy).value(), IsEmpty());
}

TEST(TrustRules, WhatWasTrustedStaysSoWhileThePolicyHolds) {
  minisign::PublicKey key, other;
  other.bytes[0] = 1;
  TrustPolicy policy;
  EXPECT_TRUE(still_trusted(policy, {}, "cpu", "aa"));
  EXPECT_FALSE(still_trusted(policy, {{{"set_id", ""}}, {}}, "cpu", "aa"));
  policy.allow["set_id"] = {"why", ""};
  EXPECT_TRUE(still_trusted(policy, {{{"set_id", ""}}, {}}, "cpu", "aa"));
  policy.sha256["cpu"] = {{"bb", "cc"}, "policy.yaml:1:1"};
  EXPECT_FALSE(still_trusted(policy, {}, "cpu", "aa"));
  EXPECT_TRUE(still_trusted(policy, {}, "cpu", "cc"));
  EXPECT_TRUE(still_trusted(policy, {}, "other", "aa"));
  policy.keys.value = {key};
  EXPECT_FALSE(still_trusted(policy, {}, "other", "aa"));
  EXPECT_TRUE(still_trusted(policy, {{}, key}, "other", "aa"));
  EXPECT_FALSE(still_trusted(policy, {{}, other}, "other", "aa"));
  policy.signatures_required.value = false;
  EXPECT_TRUE(still_trusted(policy, {}, "other", "aa"));
  EXPECT_FALSE(still_trusted(policy, {{}, other}, "other", "aa")) << "its key was taken out";
}

std::shared_ptr<TrustPolicy> allowing(std::string_view check) {
  auto policy = std::make_shared<TrustPolicy>();
  policy->allow[std::string(check)] = {"a test", "policy:1:1"};
  return policy;
}

// A plugin in a folder below the test's own.
class TrustFiles : public ::testing::Test {
 protected:
  TrustFiles() {
    std::filesystem::create_directory(folder);
    set_mode(folder, 0755);
    std::filesystem::copy_file(fakes::fake("fake_full"), file);
    set_mode(file, 0644);
  }
  static void set_mode(const std::filesystem::path& path, mode_t mode) {
    ASSERT_EQ(chmod(path.c_str(), mode), 0);
  }
  Discovery found(std::shared_ptr<const TrustPolicy> policy = nullptr,
                  const Discovery* last = nullptr) const {
    return discover({folder.string()}, last, std::move(policy)).value();
  }
  std::string fault(std::shared_ptr<const TrustPolicy> policy = nullptr) const {
    return found(std::move(policy)).plugins.at(0)->fault;
  }

  const Directory directory;
  const std::filesystem::path folder = directory.path() / "plugins", file = folder / "plugin.so";
};

TEST_F(TrustFiles, TheFileAndEachFolderAboveAreJudged) {
  EXPECT_EQ(fault(), "");
  EXPECT_THAT(trusted_users().library_path, HasSubstr("trust_test"));
  struct Row {
    std::filesystem::path path;
    mode_t bad, good;
    std::string_view check;
  };
  for (const Row& row :
       {Row{file, 0646, 0644, kWorldWritable}, Row{folder, 0757, 0755, kWorldWritable},
        Row{directory.path(), 0757, 0700, kWorldWritable}, Row{file, 04755, 0644, kSetId},
        Row{file, 02755, 0644, kSetId}}) {
    set_mode(row.path, row.bad);
    EXPECT_THAT(fault(),
                AllOf(StartsWith("not trusted: the "), HasSubstr(" " + row.path.string() + " ("),
                      HasSubstr(fmt::format("mode {:04o}", row.bad))));
    const Discovery relaxed = found(allowing(row.check));
    EXPECT_EQ(relaxed.plugins[0]->fault, "");
    ASSERT_THAT(relaxed.plugins[0]->grounds.relaxed, SizeIs(1));
    EXPECT_THAT(relaxed.plugins[0]->grounds.relaxed[0].text, HasSubstr(": a test)"));
    set_mode(row.path, row.good);
    EXPECT_EQ(fault(), "");
    EXPECT_THAT(found(allowing(row.check)).plugins[0]->grounds.relaxed, IsEmpty());
  }
  set_mode(folder, 01777);
  EXPECT_EQ(fault(), "") << "sticky";
}

TEST_F(TrustFiles, AnotherOwnerOrGroup) {
  if (geteuid() != 0) GTEST_SKIP() << "only root gives files away";
  for (const auto& path : {file, folder, directory.path()}) {
    ASSERT_EQ(chown(path.c_str(), 12345, 12345), 0);
    EXPECT_THAT(fault(), HasSubstr(path.string() + " (mode ")) << path;
    EXPECT_THAT(fault(), HasSubstr("uid 12345, gid 12345) belongs to another user"));
    EXPECT_EQ(fault(allowing(kForeignOwner)), "");
    ASSERT_EQ(chown(path.c_str(), 0, 12345), 0);
    EXPECT_EQ(fault(), "");
    const auto before = static_cast<mode_t>(std::filesystem::status(path).permissions());
    set_mode(path, before | 020);
    EXPECT_THAT(fault(), HasSubstr("may be written by its group"));
    EXPECT_EQ(fault(allowing(kGroupWritable)), "");
    set_mode(path, before);
    ASSERT_EQ(chown(path.c_str(), 0, 0), 0);
  }
}

// Nothing of the file is read before: a FIFO's reader would wait, and text has another fault.
TEST_F(TrustFiles, IsDecidedBeforeTheFileIsRead) {
  fakes::overwrite_file(file, "text");
  EXPECT_THAT(fault(), HasSubstr("is not an ELF file"));
  set_mode(file, 0666);
  EXPECT_THAT(fault(), StartsWith("not trusted: "));
  EXPECT_EQ(found().plugins[0]->hash, "");
}

TEST_F(TrustFiles, ALinkIsJudgedByWhereItLeads) {
  const auto inner = directory.path() / "inner";
  std::filesystem::create_directory(inner);
  std::filesystem::rename(file, inner / "real.so");
  std::filesystem::create_symlink(inner / "real.so", file);
  set_mode(inner, 0757);
  const auto found = discover({folder.string(), inner.string()}).value();
  ASSERT_THAT(found.plugins, SizeIs(2));
  EXPECT_THAT(found.plugins[0]->fault, HasSubstr("the folder " + inner.string()));
}

// ---- A scan after another one ----

// A file that is older is not read again while its times stay as they are.
constexpr std::chrono::milliseconds kTick{2100};

TEST_F(TrustFiles, AChangeOfModesIsSeenThoughTheBytesAreTheSame) {
  std::this_thread::sleep_for(kTick);
  for (const auto& [path, bad, good] :
       {std::tuple{folder, 0757, 0755}, std::tuple{file, 0646, 0644}}) {
    const Discovery first = found();
    set_mode(path, bad);
    const Discovery second = found(nullptr, &first);
    EXPECT_EQ(second.plugins[0]->fault, "");
    EXPECT_THAT(second.plugins[0]->present_fault, StartsWith("not trusted: the "));
    EXPECT_THAT(second.warnings, ElementsAre(HasSubstr("its last good version, fake_full 1.0.0, "
                                                       "stays in service")));
    EXPECT_EQ(second.plugins[0]->hash, first.plugins[0]->hash);
    set_mode(path, good);
    const Discovery third = found(nullptr, &second);
    EXPECT_EQ(third.plugins[0]->present_fault, "");
    EXPECT_THAT(third.warnings, IsEmpty());
  }
}

TEST_F(TrustFiles, NewBytesThatAreNotTrustedLeaveTheLastGoodOnes) {
  const Discovery first = found();
  fakes::overwrite_file(file, fakes::read_file(fakes::fake("fake_minimal")));
  set_mode(file, 0666);
  const Discovery second = found(nullptr, &first);
  EXPECT_EQ(second.plugins[0]->manifest->name, "fake_full");
  EXPECT_THAT(second.plugins[0]->present_fault, HasSubstr("may be written by everybody"));
  set_mode(file, 0644);
  EXPECT_EQ(found(nullptr, &second).plugins[0]->manifest->name, "fake_minimal");
}

TEST_F(TrustFiles, AStricterPolicyEndsWhatItDoesNotAccept) {
  set_mode(file, 0646);
  const Discovery first = found(allowing(kWorldWritable));
  ASSERT_EQ(first.plugins[0]->fault, "");
  const Discovery second = found(nullptr, &first);
  EXPECT_THAT(second.plugins[0]->fault, HasSubstr("may be written by everybody"));
  EXPECT_EQ(second.plugins[0]->manifest, std::nullopt);
  EXPECT_EQ(found(allowing(kWorldWritable), &second).plugins[0]->fault, "");
}

TEST_F(TrustFiles, OnlyFilesWithTheseHashesServeUnderAName) {
  const std::string hash = found().plugins[0]->hash;
  const auto pins = [](const std::string& backend, const std::string& one) {
    auto policy = std::make_shared<TrustPolicy>();
    policy->sha256[backend] = {{std::string(64, '0'), one}, "policy.yaml:3:9"};
    return policy;
  };
  const auto wrong = pins("fake_full", std::string(64, 'f'));
  EXPECT_EQ(fault(pins("fake_full", hash)), "");
  EXPECT_EQ(fault(pins("another", std::string(64, 'f'))), "");
  EXPECT_EQ(fault(wrong), "not trusted: its SHA-256 is " + hash +
                              ", which is not in backends.fake_full.sha256 (policy.yaml:3:9); add "
                              "it there if you trust the file");
  const Discovery first = found(pins("fake_full", hash));
  EXPECT_THAT(found(wrong, &first).plugins[0]->fault, StartsWith("not trusted: its SHA-256"));
  // The file gets other bytes: what was pinned stays in service.
  fakes::overwrite_file(file, fakes::read_file(file) + "more");
  const Discovery second = found(pins("fake_full", hash), &first);
  EXPECT_EQ(second.plugins[0]->hash, hash);
  EXPECT_THAT(second.plugins[0]->present_fault, StartsWith("not trusted: its SHA-256"));
}

// A runtime loads a plugin by path when it is first used: that file, too, is judged again.
TEST_F(TrustFiles, ByPathIsJudgedAgainWhenItIsLoaded) {
  const auto opened = Runtime::open({.thread_count = 1,
                                     .policy_text = "plugins: {load: path}\n",
                                     .plugin_path = folder.string(),
                                     .log = [](int32_t, const std::string&) {}});
  ASSERT_TRUE(opened);
  set_mode(folder, 0757);
  EXPECT_THAT(support::chosen(**opened), HasSubstr("not trusted: the folder " + folder.string()));
  set_mode(folder, 0755);
  (*opened)->retry();
  EXPECT_EQ(support::chosen(**opened), "fake_full 1.0.0");
}

// ---- Signatures ----

class TrustSignatures : public TrustFiles {
 protected:
  void SetUp() override {
    if (!support::has_minisign()) GTEST_SKIP() << "the command minisign is missing";
    signer = std::make_unique<support::Signer>();
    auto with_key = std::make_shared<TrustPolicy>();
    with_key->keys.value = {minisign::parse_public_key(signer->key()).value()};
    required = with_key;
    auto lenient = std::make_shared<TrustPolicy>(*with_key);
    lenient->signatures_required.value = false;
    optional = lenient;
  }

  const std::filesystem::path signature = file.string() + ".minisig";
  std::unique_ptr<support::Signer> signer;
  std::shared_ptr<const TrustPolicy> required, optional;
};

TEST_F(TrustSignatures, WhatMinisignSignedIsTrusted) {
  EXPECT_THAT(fault(required), AllOf(StartsWith("not trusted: it has no signature " +
                                                signature.string() + "; sign it"),
                                     HasSubstr("trust.signatures to optional")));
  EXPECT_EQ(fault(optional), "");
  signer->sign(file, "-t 'release 1.0.0'");
  for (const auto& policy : {required, optional}) {
    const Discovery all = found(policy);
    EXPECT_EQ(all.plugins[0]->fault, "");
    EXPECT_EQ(all.plugins[0]->grounds.signed_by, required->keys.value[0]);
  }
  EXPECT_EQ(found().plugins[0]->grounds.signed_by, std::nullopt) << "no key, nothing is looked at";
  fakes::overwrite_file(signature, "nonsense");
  EXPECT_EQ(fault(), "");
}

TEST_F(TrustSignatures, WhatIsWrongIsRefusedAlsoWhereNoneIsNeeded) {
  const support::Signer stranger;
  const auto expect_refused = [&](const std::string& why) {
    for (const auto& policy : {required, optional})
      EXPECT_THAT(fault(policy),
                  AllOf(StartsWith("not trusted: its signature " + signature.string() + " "),
                        HasSubstr(why)));
  };
  stranger.sign(file);
  expect_refused("is by the key ");
  signer->sign(file, "-l");
  expect_refused("is of the old kind \"Ed\"");
  signer->sign(file, "-t one");
  const std::string right = fakes::read_file(signature);
  fakes::overwrite_file(signature, fakes::replaced(right, "comment: one", "comment: two"));
  expect_refused("has a trusted comment that was changed");
  fakes::overwrite_file(signature, right);
  fakes::overwrite_file(file, fakes::read_file(file) + "more");
  expect_refused("is not of these bytes");
  fakes::overwrite_file(signature, "");
  expect_refused("is empty");
  std::filesystem::resize_file(signature, 1 << 20);
  expect_refused("has 1048576 bytes; a signature has at most 16384");
  std::filesystem::remove(signature);
  std::filesystem::create_directory(signature);
  expect_refused("is not a regular file");
  std::filesystem::remove(signature);
  ASSERT_EQ(mkfifo(signature.c_str(), 0600), 0);
  expect_refused("is not a regular file");
  std::filesystem::remove(signature);
  std::filesystem::create_symlink("/dev/zero", signature);
  expect_refused("is a link; put the file itself beside the plugin");
}

// The bytes are not looked at before their signature is right.
TEST_F(TrustSignatures, ComesBeforeTheBytesAreParsed) {
  fakes::overwrite_file(file, "text");
  signer->sign(file);
  EXPECT_THAT(fault(required), HasSubstr("is not an ELF file"));
  fakes::overwrite_file(file, "TEXT");
  EXPECT_THAT(fault(required), HasSubstr("is not of these bytes"));
}

TEST_F(TrustSignatures, AReloadSeesANewSignatureAndOtherKeys) {
  std::this_thread::sleep_for(kTick);
  const Discovery without = found(required);
  ASSERT_THAT(without.plugins[0]->fault, HasSubstr("has no signature"));
  signer->sign(file);
  const Discovery with = found(required, &without);
  EXPECT_EQ(with.plugins[0]->fault, "");
  // A signature that goes bad leaves what it was good for.
  fakes::overwrite_file(signature, "nonsense");
  const Discovery kept = found(required, &with);
  EXPECT_EQ(kept.plugins[0]->fault, "");
  EXPECT_THAT(kept.plugins[0]->present_fault, StartsWith("not trusted: its signature"));
  // A key that is taken out of the policy ends that.
  const support::Signer stranger;
  auto rotated = std::make_shared<TrustPolicy>(*required);
  rotated->keys.value = {minisign::parse_public_key(stranger.key()).value()};
  EXPECT_THAT(found(rotated, &kept).plugins[0]->fault, StartsWith("not trusted: its signature"));
  // Somebody asks for signatures of what is in service without one.
  std::filesystem::remove(signature);
  const Discovery unsigned_file = found();
  ASSERT_EQ(unsigned_file.plugins[0]->fault, "");
  EXPECT_THAT(found(required, &unsigned_file).plugins[0]->fault, HasSubstr("has no signature"));
}

// ---- Libraries that a plugin names by path ----

// The fake with another text in the place of a name, to which an entry of its dynamic table leads.
std::string linked(Elf64_Sxword tag, const std::string& path) {
  std::string bytes = fakes::read_file(fakes::fake("fake_full"));
  const std::string name = "_ITM_deregisterTMCloneTable";  // weak, so that nobody misses it
  const size_t at = bytes.find(name);
  EXPECT_LE(path.size(), name.size());
  bytes.replace(at, path.size() + 1, path.c_str(), path.size() + 1);
  Elf64_Ehdr header;
  std::memcpy(&header, bytes.data(), sizeof header);
  for (size_t n = 0; n < header.e_phnum; ++n) {
    Elf64_Phdr segment;
    std::memcpy(&segment, bytes.data() + header.e_phoff + n * sizeof segment, sizeof segment);
    if (segment.p_type != PT_DYNAMIC) continue;
    std::vector<Elf64_Dyn> entries(segment.p_filesz / sizeof(Elf64_Dyn));
    std::memcpy(entries.data(), bytes.data() + segment.p_offset, segment.p_filesz);
    uint64_t names = 0;
    for (const Elf64_Dyn& entry : entries)
      if (entry.d_tag == DT_STRTAB) names = entry.d_un.d_ptr;  // as in the file: the first segment
    for (Elf64_Dyn& entry : entries)
      if (entry.d_tag == DT_RELACOUNT) entry = {tag, {at - names}};
    std::memcpy(bytes.data() + segment.p_offset, entries.data(), segment.p_filesz);
  }
  return bytes;
}

TEST_F(TrustFiles, WhatAPluginLinksToIsListed) {
  const auto plugin = found().plugins[0];
  EXPECT_THAT(plugin->links.needed, ::testing::Contains("libc.so.6"));
  EXPECT_THAT(plugin->links.run_path, IsEmpty());
  fakes::overwrite_file(file, linked(DT_RUNPATH, "/usr/lib:/no/such/place"));
  const auto other = found().plugins[0];
  EXPECT_EQ(other->fault, "");
  EXPECT_THAT(other->links.run_path, ElementsAre("/usr/lib", "/no/such/place"));
}

TEST_F(TrustFiles, AFolderOfLibrariesIsJudgedLikeAFolderAbove) {
  const Directory place;
  for (const Elf64_Sxword tag : {DT_RUNPATH, DT_RPATH}) {
    set_mode(place.path(), 0755);
    fakes::overwrite_file(file, linked(tag, place.text()));
    const Discovery first = found();
    EXPECT_EQ(first.plugins[0]->fault, "");
    set_mode(place.path(), 0757);
    const std::string refusal =
        "not trusted: its RUNPATH " + place.text() + ": the folder " + place.text() + " (mode 0757";
    EXPECT_THAT(fault(), StartsWith(refusal));
    EXPECT_THAT(found(nullptr, &first).plugins[0]->present_fault, StartsWith(refusal));
    EXPECT_EQ(fault(allowing(kWorldWritable)), "");
  }
  // What is not there could be made by whoever may write to the last folder that is.
  fakes::overwrite_file(file, linked(DT_RUNPATH, place.text() + "/no"));
  EXPECT_THAT(fault(), HasSubstr("may be written by everybody"));
}

TEST_F(TrustFiles, APathOfALibraryIsJudgedWithItsLinks) {
  const Directory place;
  std::filesystem::create_directory(place.path() / "a");
  set_mode(place.path() / "a", 0757);
  std::filesystem::create_symlink("a", place.path() / "b");
  fakes::overwrite_file(file, linked(DT_NEEDED, place.text() + "/b/x"));
  EXPECT_THAT(fault(), AllOf(StartsWith("not trusted: its library " + place.text() + "/b/x: "),
                             HasSubstr("the folder " + place.text() + "/a (mode 0757")));
  fakes::overwrite_file(file, linked(DT_NEEDED, "/tmp/../usr/x"));
  EXPECT_EQ(fault(), "");
}

TEST_F(TrustFiles, APathMayNotDependOnTheWorkingDirectory) {
  for (const auto& [tag, path] :
       std::vector<std::pair<Elf64_Sxword, std::string>>{{DT_RUNPATH, "lib"},
                                                         {DT_RUNPATH, "/usr/lib:"},
                                                         {DT_RPATH, ":/usr"},
                                                         {DT_NEEDED, "./x"}}) {
    fakes::overwrite_file(file, linked(tag, path));
    EXPECT_THAT(fault(), AllOf(StartsWith("not trusted: its "),
                               HasSubstr(" is relative to the working directory; expected")))
        << path;
    EXPECT_EQ(fault(allowing(kRelativePath)), "");
  }
}

TEST_F(TrustFiles, OriginIsThePluginsFolderAndIsNoted) {
  fakes::overwrite_file(file, linked(DT_RUNPATH, "$ORIGIN/lib"));
  EXPECT_EQ(fault(), "");
  EXPECT_TRUE(names_origin(found().plugins[0]->links));
  std::filesystem::create_directory(folder / "lib");
  set_mode(folder / "lib", 0757);
  for (const char* origin : {"$ORIGIN/lib", "${ORIGIN}/lib"}) {
    fakes::overwrite_file(file, linked(DT_RUNPATH, origin));
    EXPECT_THAT(fault(), HasSubstr("the folder " + (folder / "lib").string()));
  }
}

}  // namespace
}  // namespace attnrt::core
