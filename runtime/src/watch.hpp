// runtime/src/watch.hpp: changes of plugin directories and the policy file into "reload is due"
//
//   event ---> wait until it has been quiet for a while ---> due: handle() returns true ---> reload
//     ^                                                                                         |
//     +---- what changes during the reload, and what it did not watch before (follow) <---------+
//
// What leads to a path is watched, too: each folder on the way to it, for the one name that the way
// takes there, and what symbolic links name. So a directory that vanishes and comes back is seen,
// and so is a link that is turned to another directory. inotify tells of changes by this machine
// alone: on a network file system, those of others are not seen.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.hpp"
#include "base/fork.hpp"
#include "base/result.hpp"
#include "runtime_options.hpp"

namespace attnrt::core {

// All paths are absolute.
struct WatchedPaths {
  std::vector<std::string> directories;  // of plugins
  std::string policy_file;               // "": there is none
};

// THREADS: any call from any threads at once. A child made by fork calls nothing: its descriptors
// are those of the parent, and what it reads there is missing in the parent.
class Watch {
 public:
  // Errors: OUT_OF_MEMORY or INTERNAL if descriptors, inotify's instances or memory ran out.
  static Result<std::unique_ptr<Watch>> open(WatchTimes times);

  // Readable when handle() has something to do. The Watch owns it.
  int descriptor() const { return all_.number(); }

  // Waits until the descriptor is readable. Returns false if it is not open any more.
  bool wait() const;

  // Takes the events that have come. RETURNS true once when a reload is due. Never waits.
  bool handle();

  // Whether the policy, or the way to a path, has changed since handle() said that a reload is due.
  // What was read may be half of a policy then, which may well be a policy of its own: the reload
  // must not be taken. Another one becomes due.
  bool policy_changed();

  // Watches these paths from now on, in place of others. If one of them was not watched before, a
  // reload becomes due: what changed until now was not seen. Returns "", or what is not watched.
  std::string follow(const WatchedPaths& paths);

  // A reload becomes due after this time, although nothing changes.
  void again_after(std::chrono::milliseconds delay);

 private:
  using Clock = std::chrono::steady_clock;

  // What matters in one folder.
  struct Folder {
    std::set<std::string, std::less<>> names;  // on the way to what is watched
    bool has_plugins = false;
    bool has_policy = false;
    bool is_on_way(std::string_view name) const;
    bool matters(std::string_view name) const;
  };
  using Folders = std::map<std::string, Folder>;  // by path

  Watch(WatchTimes times, Descriptor events, Descriptor timer, Descriptor all);
  static std::string add_way(const std::string& path, Folders& folders);
  void take_events();
  void take(int watch, uint32_t what, std::string_view name);
  void changed();
  Clock::time_point due() const;
  void set_timer(Clock::duration after) const;

  const WatchTimes times_;
  const Descriptor events_;  // inotify
  const Descriptor timer_;
  const Descriptor all_;  // epoll on both
  ResetMutex mutex_;
  std::map<int, Folder> folders_;                  // by inotify's numbers
  std::set<std::pair<int, std::string>> written_;  // files that were modified, but not closed
  bool pending_ = false;                           // a reload will be due
  bool policy_changed_ = false;                    // or the way to a path
  Clock::time_point first_, last_;                 // changes since the last reload
};

}  // namespace attnrt::core
