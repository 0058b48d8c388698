// runtime/src/trust.cpp: decides by owners and permissions whether a plugin file may be loaded
#include "trust.hpp"

#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <filesystem>
#include <iterator>
#include <list>

#include "base/file.hpp"
#include "own_file.hpp"

namespace attnrt::core {
namespace {

constexpr int kMostLinks = 40;  // as in Linux

const char* noun(mode_t mode) { return S_ISDIR(mode) ? "folder" : S_ISLNK(mode) ? "link" : "file"; }

// "the folder /srv/plugins (mode 2775, uid 0, gid 50)"
std::string described(const PathFacts& facts) {
  return fmt::format("the {} {} (mode {:04o}, uid {}, gid {})", noun(facts.mode), facts.path,
                     facts.mode & 07777U, facts.owner, facts.group);
}

std::string users_text(const TrustedUsers& users) {
  std::string text = "root";
  if (users.process != 0) text += fmt::format(", uid {} (this process)", users.process);
  if (users.library && *users.library != 0 && *users.library != users.process)
    text += fmt::format(", uid {} (who owns {})", *users.library, users.library_path);
  return text;
}

// Whether the folder is above the file.
bool is_above(const std::string& folder, const std::string& file) {
  const std::string prefix = folder == "/" ? folder : folder + "/";
  return file.starts_with(prefix);
}

// Returns the real facts of every folder and link on the way to the path, and of what it leads to,
// from the root down. Whoever may not write to a folder cannot exchange what is in it, so no later
// exchange can hide the first folder that somebody else may write. The way ends before what is not
// there.
Result<std::vector<PathFacts>> way_to(const std::string& path) {
  std::vector<PathFacts> way;
  std::string at;  // where the way has led to; "" is the root
  std::filesystem::path whole = path;
  std::list<std::filesystem::path> rest(whole.begin(), whole.end());
  for (int links = 0; !rest.empty();) {
    const std::string name = rest.front();
    rest.pop_front();
    if (name.empty() || name == ".") continue;
    if (name == "..") {
      at.resize(at.rfind('/') == std::string::npos ? 0 : at.rfind('/'));
      continue;
    }
    const std::string next = name == "/" ? name : at + "/" + name;
    struct stat status {};
    if (lstat(next.c_str(), &status) != 0) {
      if (could_not_look(errno)) return system_error("its folders cannot be judged");
      return way;
    }
    const bool has_list = (status.st_mode & S_IWGRP) != 0 && !S_ISLNK(status.st_mode) &&
                          getxattr(next.c_str(), "system.posix_acl_access", nullptr, 0) > 0;
    way.push_back(facts_of(next, status, has_list));
    if (!S_ISLNK(status.st_mode)) {
      at = name == "/" ? "" : next;
      continue;
    }
    std::array<char, PATH_MAX> target{};
    const ssize_t length = readlink(next.c_str(), target.data(), target.size());
    if (length <= 0 || ++links > kMostLinks) return way;  // the loader cannot follow it, either
    const std::filesystem::path to(target.data(), target.data() + length);
    rest.insert(rest.begin(), to.begin(), to.end());
    if (to.is_absolute()) at.clear();
  }
  return way;
}

// Puts the plugin's folder in the place of $ORIGIN.
std::string without_origin(std::string path, const std::string& folder) {
  for (const std::string_view word : {"$ORIGIN", "${ORIGIN}"}) {
    for (size_t at = 0; (at = path.find(word, at)) != std::string::npos; at += folder.size())
      path.replace(at, word.size(), folder);
  }
  return path;
}

}  // namespace

PathFacts facts_of(std::string path, const struct stat& status, bool has_access_list) {
  return {std::move(path), status.st_uid, status.st_gid, status.st_mode, has_access_list};
}

TrustedUsers trusted_users() {
  TrustedUsers users{geteuid(), {}, own_file()};
  struct stat status {};
  if (!users.library_path.empty() && stat(users.library_path.c_str(), &status) == 0)
    users.library = status.st_uid;
  return users;
}

std::vector<Objection> objections_to(const PathFacts& facts, const TrustedUsers& users) {
  std::vector<Objection> found;
  const bool is_folder = S_ISDIR(facts.mode);
  if (is_folder && is_above(facts.path, users.library_path)) return found;
  if (facts.owner != 0 && facts.owner != users.process && facts.owner != users.library) {
    found.push_back({kForeignOwner, described(facts) + " belongs to another user",
                     fmt::format("expected {}; chown it", users_text(users))});
  }
  if (S_ISLNK(facts.mode)) return found;  // its mode means nothing
  // In a sticky folder, only who owns a file or the folder may exchange the file.
  const bool is_sticky = is_folder && (facts.mode & S_ISVTX) != 0;
  const bool only_the_owner = facts.group == facts.owner && !facts.has_access_list;
  if ((facts.mode & S_IWOTH) != 0 && !is_sticky) {
    found.push_back({kWorldWritable, described(facts) + " may be written by everybody",
                     fmt::format("expected only by its owner; chmod o-w {}", facts.path)});
  }
  if ((facts.mode & S_IWGRP) != 0 && !is_sticky && !only_the_owner) {
    found.push_back(
        {kGroupWritable,
         fmt::format("{} may be written by {}", described(facts),
                     facts.has_access_list ? "those in its access control list" : "its group"),
         fmt::format("expected only by its owner; chmod g-w {}", facts.path)});
  }
  if (S_ISREG(facts.mode) && (facts.mode & (S_ISUID | S_ISGID)) != 0) {
    found.push_back({kSetId, described(facts) + " is setuid or setgid",
                     fmt::format("no library needs that; chmod ug-s {}", facts.path)});
  }
  return found;
}

Result<std::vector<Relaxed>> overruled(const std::vector<Objection>& objections,
                                       const TrustPolicy& policy) {
  std::vector<Relaxed> relaxed;
  for (const Objection& objection : objections) {
    const auto reason = policy.allow.find(objection.check);
    if (reason == policy.allow.end()) {
      return fail(ATTNRT_UNSUPPORTED, "not trusted: {}; {}, or give a reason under trust.allow.{}",
                  objection.found, objection.remedy, objection.check);
    }
    relaxed.push_back(
        {std::string(objection.check), fmt::format("{} (trust.allow.{}: {})", objection.found,
                                                   objection.check, reason->second.value)});
  }
  return relaxed;
}

Result<void> check_hash(const TrustPolicy& policy, std::string_view backend,
                        const std::string& hash) {
  const auto pins = policy.sha256.find(backend);
  if (pins == policy.sha256.end()) return {};
  const auto& [hashes, origin] = pins->second;
  if (std::find(hashes.begin(), hashes.end(), hash) != hashes.end()) return {};
  return fail(ATTNRT_UNSUPPORTED,
              "not trusted: its SHA-256 is {}, which is not in backends.{}.sha256 ({}); add it "
              "there if you trust the file",
              hash, backend, origin);
}

bool still_trusted(const TrustPolicy& policy, const Grounds& grounds, std::string_view backend,
                   const std::string& hash) {
  const auto& keys = policy.keys.value;
  const bool key_holds = grounds.signed_by
                             ? std::find(keys.begin(), keys.end(), *grounds.signed_by) != keys.end()
                             : keys.empty() || !policy.signatures_required.value;
  return key_holds && check_hash(policy, backend, hash) &&
         std::all_of(grounds.relaxed.begin(), grounds.relaxed.end(), [&](const Relaxed& each) {
           return policy.allow.find(each.check) != policy.allow.end();
         });
}

bool same_policy(const std::shared_ptr<const TrustPolicy>& one,
                 const std::shared_ptr<const TrustPolicy>& other) {
  return one == other || (one && other && *one == *other);
}

std::shared_ptr<const TrustPolicy> trust_everybody() {
  auto policy = std::make_shared<TrustPolicy>();
  for (const auto check : {kForeignOwner, kGroupWritable, kWorldWritable, kSetId, kRelativePath})
    policy->allow[std::string(check)] = {"the file was asked for", ""};
  return policy;
}

Trust::Trust(std::shared_ptr<const TrustPolicy> policy)
    : policy_(policy ? std::move(policy) : std::make_shared<const TrustPolicy>()),
      users_(trusted_users()) {}

Result<std::vector<Objection>> Trust::objections_on_the_way_to(const std::string& path,
                                                               bool must_exist) {
  const auto known = judged_.find(path);
  if (known != judged_.end()) return known->second;
  const auto way = way_to(path);
  if (!way) return tl::unexpected(way.error());
  // A path without links, which was there a moment ago.
  if (must_exist && (way->empty() || way->back().path != path)) {
    return fail(ATTNRT_UNSUPPORTED,
                "not trusted: the folder {} cannot be judged; reload the "
                "runtime",
                path);
  }
  std::vector<Objection> found;
  for (const PathFacts& facts : *way) {
    auto more = objections_to(facts, users_);
    std::move(more.begin(), more.end(), std::back_inserter(found));
  }
  judged_.emplace(path, found);
  return found;
}

Result<std::vector<Relaxed>> Trust::judge(const PathFacts& file) {
  auto found =
      objections_on_the_way_to(std::filesystem::path(file.path).parent_path().string(), true);
  if (!found) return tl::unexpected(found.error());
  auto own = objections_to(file, users_);
  std::move(own.begin(), own.end(), std::back_inserter(*found));
  return overruled(*found, *policy_);
}

Result<std::vector<Relaxed>> Trust::judge(const PluginLinks& links, const std::string& folder) {
  std::vector<Objection> found;
  const auto look = [&](const char* what, const std::string& name) -> Result<void> {
    const std::string path = without_origin(name, folder);
    if (!path.starts_with('/')) {
      found.push_back(
          {kRelativePath,
           fmt::format("its {} {} is relative to the working directory", what, shown(name)),
           "expected an absolute path; link it again with one"});
      return {};
    }
    auto more = objections_on_the_way_to(path, false);
    if (!more) return tl::unexpected(more.error());
    for (Objection& objection : *more) {
      objection.found = fmt::format("its {} {}: {}", what, shown(name), objection.found);
      found.push_back(std::move(objection));
    }
    return {};
  };
  for (const std::string& library : links.needed) {
    if (library.find('/') == std::string::npos) continue;  // the loader's own search finds it
    if (auto looked = look("library", library); !looked) return tl::unexpected(looked.error());
  }
  for (const std::string& each : links.run_path) {
    if (auto looked = look("RUNPATH", each); !looked) return tl::unexpected(looked.error());
  }
  return overruled(found, *policy_);
}

}  // namespace attnrt::core
