// runtime/src/trust.hpp: decides by owners and permissions whether a plugin file may be loaded
//
// Nobody but trusted users may be able to change a file that is loaded, or to put another one in
// its place. Trusted are root, the user of this process, and who owns libattnrt.so. This is decided
// before any byte of the file is read.
//
//   what             must be so                                              key that relaxes it
//   file, folder     its owner is trusted                                    foreign_owner
//   file, folder     its group may not write, unless it is the owner's own   group_writable
//   file, folder     others may not write                                    world_writable
//   file             neither setuid nor setgid                               set_id
//   library, RUNPATH as a file or folder; not relative                       relative_path
//
// Folders are all those above the real path. One that others may write is as good as one that they
// may not, if it is sticky. A folder above libattnrt.so is not judged: whoever may exchange what is
// in it may exchange the runtime itself.
#pragma once

#include <sys/types.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config.hpp"
#include "formats/elf_file.hpp"

struct stat;

namespace attnrt::core {

// What the system says of a file, folder or link.
struct PathFacts {
  std::string path;
  uid_t owner = 0;
  gid_t group = 0;
  mode_t mode = 0;  // with the bits of its type
  // An access control list lets others write, too. The mode then shows its mask as the group's
  // bits.
  bool has_access_list = false;
};
PathFacts facts_of(std::string path, const struct stat& status, bool has_access_list);

struct TrustedUsers {
  uid_t process = 0;             // the effective user
  std::optional<uid_t> library;  // who owns the file that holds this code
  std::string library_path;      // that file; "": not known
};
TrustedUsers trusted_users();

// A check that failed.
struct Objection {
  std::string_view check;  // the key under trust.allow
  std::string found;
  std::string remedy;  // what was expected, and what to do
};

// Returns what speaks against a file, folder or link. Pure.
std::vector<Objection> objections_to(const PathFacts& facts, const TrustedUsers& users);

// An objection that the policy overrules, with its reason, for `attnrt list`.
struct Relaxed {
  std::string check, text;
  bool operator==(const Relaxed&) const = default;
};

// What a file was trusted for, when it was read.
struct Grounds {
  std::vector<Relaxed> relaxed;
  std::optional<minisign::PublicKey> signed_by;  // none: its signature was not looked at
};

// Returns the objections as overruled. Errors: UNSUPPORTED, "not trusted: ..." for the first one
// that the policy does not overrule. Pure.
Result<std::vector<Relaxed>> overruled(const std::vector<Objection>& objections,
                                       const TrustPolicy& policy);

// Checks that the policy names no hashes for the backend, or this one. Errors: "not trusted: ...".
Result<void> check_hash(const TrustPolicy& policy, std::string_view backend,
                        const std::string& hash);

// Whether the policy still accepts what was trusted on these grounds, perhaps by another policy.
bool still_trusted(const TrustPolicy& policy, const Grounds& grounds, std::string_view backend,
                   const std::string& hash);

// Whether two policies decide alike; nullptr is the strictest.
bool same_policy(const std::shared_ptr<const TrustPolicy>& one,
                 const std::shared_ptr<const TrustPolicy>& other);

// Returns a policy that relaxes every check, for a file that the user has named.
std::shared_ptr<const TrustPolicy> trust_everybody();

// Judges files for one scan, which looks at each folder once.
class Trust {
 public:
  explicit Trust(std::shared_ptr<const TrustPolicy> policy);  // nullptr: the strictest

  // Judges a file that is open, and the folders above it. REQUIRES: facts.path is its real path.
  // Errors: UNSUPPORTED, "not trusted: ..."; OUT_OF_MEMORY or INTERNAL: the system could not tell.
  Result<std::vector<Relaxed>> judge(const PathFacts& file);

  // Judges the libraries and folders that the loader looks at for a plugin's sake, as far as the
  // plugin names them by path. folder: the plugin's own, which is $ORIGIN.
  Result<std::vector<Relaxed>> judge(const PluginLinks& links, const std::string& folder);

  const std::shared_ptr<const TrustPolicy>& policy() const { return policy_; }

 private:
  Result<std::vector<Objection>> objections_on_the_way_to(const std::string& path, bool must_exist);

  std::shared_ptr<const TrustPolicy> policy_;
  TrustedUsers users_;
  std::map<std::string, std::vector<Objection>> judged_;
};

}  // namespace attnrt::core
