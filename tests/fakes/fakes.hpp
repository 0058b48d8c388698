// tests/fakes/fakes.hpp: temporary directories of fake plugins, for one test each
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#ifndef ATTNRT_FAKES_DIR
#define ATTNRT_FAKES_DIR ATTNRT_BUILD_DIR "/tests/fakes/plugins"
#endif

namespace attnrt::fakes {

namespace fs = std::filesystem;

inline fs::path fake(std::string_view name) {
  return fs::path(ATTNRT_FAKES_DIR) / (std::string(name) + ".so");
}

inline std::string read_file(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error("cannot read " + path.string());
  return {std::istreambuf_iterator<char>(stream), {}};
}

// Writes in place, so that the inode stays the same, as with cp.
inline void overwrite_file(const fs::path& path, std::string_view bytes) {
  std::ofstream stream(path, std::ios::binary | std::ios::trunc);
  stream.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!stream.flush()) throw std::runtime_error("cannot write " + path.string());
}

// A new temporary directory, removed with everything in it by the destructor.
class Directory {
 public:
  Directory() {
    std::string pattern = fs::temp_directory_path() / "attnrt_test_XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary directory");
    path_ = fs::canonical(pattern);
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  ~Directory() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }

  const fs::path& path() const { return path_; }
  std::string text() const { return path_; }

  // Copies the fake into the directory, under its own or another file name. What umask and the
  // build's files are must not matter: a plugin that others may write is not trusted.
  fs::path add(std::string_view name, std::string as = {}) const {
    if (as.empty()) as = std::string(name) + ".so";
    return copy(fake(name), as);
  }
  fs::path copy(const fs::path& from, const std::string& as) const {
    fs::copy_file(from, path_ / as, fs::copy_options::overwrite_existing);
    chmod((path_ / as).c_str(), 0644);
    return path_ / as;
  }
  fs::path write(const std::string& file, std::string_view bytes) const {
    const bool is_new = !fs::exists(path_ / file);
    overwrite_file(path_ / file, bytes);
    if (is_new) chmod((path_ / file).c_str(), 0644);
    return path_ / file;
  }

 private:
  fs::path path_;
};

// Replaces every occurrence of a string, for paths that differ from run to run.
inline std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

}  // namespace attnrt::fakes
