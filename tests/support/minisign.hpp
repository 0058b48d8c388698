// tests/support/minisign.hpp: signs files with Debian's command minisign
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

#include "fakes/fakes.hpp"

namespace attnrt::core::support {

// Whether the command is here. Tests that need it are skipped without it; ./dev installs it.
inline bool has_minisign() { return std::system("minisign -v >/dev/null 2>&1") == 0; }

// A key pair in a folder of its own.
class Signer {
 public:
  Signer() { run("-G -W"); }

  // The public key, as policies name it: the second line of its file.
  std::string key() const {
    std::ifstream file(folder_.path() / "key.pub");
    std::string line;
    std::getline(file, line);
    std::getline(file, line);
    return line;
  }

  // Writes the signature beside the file.
  void sign(const std::filesystem::path& file, const std::string& options = "") const {
    run("-S -m '" + file.string() + "' " + options);
  }

 private:
  void run(const std::string& words) const {
    const std::string command = "minisign " + words + " -p '" + folder_.text() + "/key.pub' -s '" +
                                folder_.text() + "/key' >/dev/null 2>&1 </dev/null";
    if (std::system(command.c_str()) != 0) throw std::runtime_error(command);
  }

  fakes::Directory folder_;
};

}  // namespace attnrt::core::support
