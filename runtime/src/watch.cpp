// runtime/src/watch.cpp: changes of plugin directories and the policy file into "reload is due"
#include "watch.hpp"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <filesystem>
#include <mutex>

namespace attnrt::core {
namespace {

// Of every folder that is watched: its names change, it moves, or it may become readable.
constexpr uint32_t kNames = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB |
                            IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_MASK_ADD;
// Of folders with plugins or the policy: a file's contents change.
constexpr uint32_t kContents = IN_MODIFY | IN_CLOSE_WRITE;

// As in the kernel: more links than that are a circle.
constexpr int kMostLinks = 40;

// A policy that is not closed for longer was truncated without being opened, or is never complete.
constexpr std::chrono::seconds kLongestWrite{60};

// Reads of inotify for one handle(): what is left makes the descriptor readable again.
constexpr int kMostReads = 64;

Result<Descriptor> opened(int number, const char* what) {
  Descriptor descriptor(number);
  if (number >= 0) return descriptor;
  const int error = errno;
  return fail(error == ENOMEM ? ATTNRT_OUT_OF_MEMORY : ATTNRT_INTERNAL, "watch: {}: {}{}", what,
              std::strerror(error),
              error == EMFILE ? " (ulimit -n, or fs.inotify.max_user_instances)" : "");
}

}  // namespace

Watch::Watch(WatchTimes times, Descriptor events, Descriptor timer, Descriptor all)
    : times_(times), events_(std::move(events)), timer_(std::move(timer)), all_(std::move(all)) {}

Result<std::unique_ptr<Watch>> Watch::open(WatchTimes times) {
  auto events = opened(inotify_init1(IN_NONBLOCK | IN_CLOEXEC), "inotify cannot be opened");
  if (!events) return tl::unexpected(events.error());
  auto timer =
      opened(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), "a timer cannot be made");
  if (!timer) return tl::unexpected(timer.error());
  auto all = opened(epoll_create1(EPOLL_CLOEXEC), "a descriptor for both cannot be made");
  if (!all) return tl::unexpected(all.error());
  for (const int number : {events->number(), timer->number()}) {
    epoll_event event{};
    event.events = EPOLLIN;
    if (epoll_ctl(all->number(), EPOLL_CTL_ADD, number, &event) != 0)
      return tl::unexpected(opened(-1, "a descriptor for both cannot be made").error());
  }
  return std::unique_ptr<Watch>(
      new Watch(times, *std::move(events), *std::move(timer), *std::move(all)));
}

bool Watch::wait() const {
  pollfd waited{descriptor(), POLLIN, 0};
  while (poll(&waited, 1, -1) < 0) {
    if (errno != EINTR && errno != EAGAIN) return false;
  }
  return (waited.revents & POLLIN) != 0;
}

// name: "": it is the folder itself.
bool Watch::Folder::is_on_way(std::string_view name) const {
  return name.empty() || names.contains(name);
}

// A signature beside a plugin has its name in its own, as have the temporary files of many tools.
bool Watch::Folder::matters(std::string_view name) const {
  return is_on_way(name) || (has_plugins && name.find(".so") != std::string_view::npos);
}

// Adds each folder on the way to the path, with the name that the way takes there, as the kernel
// goes it. Returns where it leads, or "" if it does not lead there now.
std::string Watch::add_way(const std::string& path, Folders& folders) {
  std::filesystem::path here = "/";
  std::vector<std::filesystem::path> rest;  // the next name last
  const auto go = [&rest](const std::filesystem::path& way) {
    const std::vector<std::filesystem::path> names(way.begin(), way.end());
    rest.insert(rest.end(), names.rbegin(), names.rend());
  };
  go(path);
  for (int links = 0; !rest.empty();) {
    const std::filesystem::path name = std::move(rest.back());
    rest.pop_back();
    if (name.empty() || name == ".") continue;
    if (name == "/" || name == "..") {
      here = name == "/" ? name : here.parent_path();
      continue;
    }
    folders[here].names.insert(name);
    struct stat status {};
    const std::filesystem::path next = here / name;
    if (lstat(next.c_str(), &status) != 0) return "";
    if (S_ISLNK(status.st_mode)) {
      std::array<char, PATH_MAX> target{};
      const ssize_t length = readlink(next.c_str(), target.data(), target.size());
      if (length <= 0 || ++links > kMostLinks) return "";
      go(std::string(target.data(), static_cast<size_t>(length)));
    } else {
      here = next;
    }
  }
  return here;
}

std::string Watch::follow(const WatchedPaths& paths) {
  Folders wanted;
  std::set<std::string> needed;  // those that must be watched, not only those on the way
  for (const auto& directory : paths.directories) {
    if (directory.empty()) continue;
    const std::string real = add_way(directory, wanted);
    if (real.empty()) continue;
    wanted[real].has_plugins = true;
    needed.insert(real);
  }
  if (!paths.policy_file.empty()) {
    const std::filesystem::path real = add_way(paths.policy_file, wanted);
    if (!real.empty()) {
      wanted[real.parent_path()].has_policy = true;
      needed.insert(real.parent_path());
    }
  }

  const std::lock_guard lock(mutex_);
  std::string missing;
  std::map<int, Folder> before;
  before.swap(folders_);
  bool is_new = false;
  for (auto& [path, folder] : wanted) {
    const uint32_t mask = folder.has_plugins || folder.has_policy ? kNames | kContents : kNames;
    const int watch = inotify_add_watch(events_.number(), path.c_str(), mask);
    if (watch < 0) {
      const int error = errno;
      if (error == ENOENT || !missing.empty() || (error == EACCES && !needed.contains(path)))
        continue;
      missing = fmt::format("{}: {}{}", path, std::strerror(error),
                            error == ENOSPC ? " (fs.inotify.max_user_watches)" : "");
      continue;
    }
    is_new = is_new || !before.contains(watch);
    Folder& known = folders_[watch];  // two paths may lead to one folder
    known.names.merge(folder.names);
    known.has_plugins = known.has_plugins || folder.has_plugins;
    known.has_policy = known.has_policy || folder.has_policy;
  }
  for (const auto& [watch, folder] : before) {
    if (!folders_.contains(watch)) inotify_rm_watch(events_.number(), watch);
  }
  if (is_new) changed();
  if (pending_) set_timer(Clock::duration::zero());
  return missing.empty() ? "" : fmt::format("watch: {}; changes there need a reload", missing);
}

void Watch::changed() {
  last_ = Clock::now();
  if (!pending_) first_ = last_;
  pending_ = true;
}

// One event of inotify. name: in the folder; "": the folder itself.
void Watch::take(int watch, uint32_t what, std::string_view name) {
  if ((what & IN_Q_OVERFLOW) != 0) {  // some were lost: any may have mattered
    policy_changed_ = true;
    return changed();
  }
  const auto folder = folders_.find(watch);
  if (folder == folders_.end() || !folder->second.matters(name)) return;
  changed();
  policy_changed_ = policy_changed_ || folder->second.is_on_way(name);
  if ((what & IN_MODIFY) != 0) written_.emplace(watch, name);
  if ((what & (IN_CLOSE_WRITE | IN_DELETE | IN_MOVED_FROM)) != 0)
    written_.erase({watch, std::string(name)});
  if ((what & IN_IGNORED) == 0) return;
  folders_.erase(folder);  // it is gone, and with it its number
  std::erase_if(written_, [watch](const auto& file) { return file.first == watch; });
}

void Watch::take_events() {
  alignas(inotify_event) std::array<char, 4096> buffer;
  for (int n = 0; n < kMostReads; ++n) {
    const ssize_t got = read(events_.number(), buffer.data(), buffer.size());
    if (got <= 0) return;
    for (ssize_t at = 0; at < got;) {
      inotify_event event{};
      std::memcpy(&event, buffer.data() + at, sizeof event);
      const char* name = buffer.data() + at + sizeof event;
      take(event.wd, event.mask, {name, strnlen(name, event.len)});
      at += static_cast<ssize_t>(sizeof event + event.len);
    }
  }
}

// Files that are being written are waited for, as far as the time lasts. After that, what there is
// of a plugin is looked at, and refused. Half of a policy may be a policy, so it gets more time.
Watch::Clock::time_point Watch::due() const {
  const bool writes_policy = std::any_of(written_.begin(), written_.end(), [&](const auto& file) {
    const auto folder = folders_.find(file.first);
    return folder != folders_.end() && folder->second.is_on_way(file.second);
  });
  const auto end = first_ + (writes_policy ? std::max<Clock::duration>(kLongestWrite, times_.most)
                                           : Clock::duration(times_.most));
  return written_.empty() ? std::min(last_ + times_.quiet, end) : end;
}

void Watch::set_timer(Clock::duration after) const {
  // Zero would stop the timer.
  const auto wait = std::max<Clock::duration>(after, std::chrono::nanoseconds(1));
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(wait);
  itimerspec time{};
  time.it_value.tv_sec = seconds.count();
  time.it_value.tv_nsec = std::chrono::nanoseconds(wait - seconds).count();
  timerfd_settime(timer_.number(), 0, &time, nullptr);
}

bool Watch::handle() {
  const std::lock_guard lock(mutex_);
  uint64_t expired = 0;
  [[maybe_unused]] const ssize_t got = read(timer_.number(), &expired, sizeof expired);
  take_events();
  if (!pending_) return false;
  const auto wait = due() - Clock::now();
  if (wait > Clock::duration::zero()) {
    set_timer(wait);
    return false;
  }
  pending_ = policy_changed_ = false;
  written_.clear();
  return true;
}

bool Watch::policy_changed() {
  const std::lock_guard lock(mutex_);
  take_events();
  if (pending_) set_timer(Clock::duration::zero());
  return policy_changed_;
}

void Watch::again_after(std::chrono::milliseconds delay) {
  const std::lock_guard lock(mutex_);
  pending_ = true;
  first_ = last_ = Clock::now() + delay - times_.quiet;
  set_timer(delay);
}

}  // namespace attnrt::core
