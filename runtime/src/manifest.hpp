// runtime/src/manifest.hpp: the bytes of .attnrt_manifest into what a backend says it can do, and why it cannot
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "formats/semver.hpp"
#include "problem/constraint.hpp"

namespace attnrt::core {

struct Manifest {
  struct Entry {
    Constraints constraints;
    std::vector<std::string> features;
    int line = 0;
  };
  std::string name;  // [a-z][a-z0-9_]*
  Version version;
  std::string version_text;
  int64_t abi = 0;  // the major version
  std::string summary;
  std::vector<std::string> devices;  // cpu cuda rocm
  std::vector<std::string> archs;    // empty: any
  std::vector<Entry> entries;        // supports; a problem fits if one entry fits
  std::vector<std::string>
      notes;  // entries that were dropped because of a key that this runtime does not know, ...

  // Why the problem fits no entry, on a device of this arch ("": a device without one); empty: it fits. A miss of archs
  // comes first. With several entries the reasons are those of the entry with the fewest (the nearest miss; the first
  // of equals). Does not compare devices with problem.device_type: the candidate's device decides. Only an entry's own
  // condition on `device` looks at it, so give the problem as it would be on the candidate's device.
  std::vector<std::string> refusals(const Problem& problem, std::string_view arch) const;

  // Why this runtime can use it for nothing at all: every entry was dropped, or no device is known; "": it can.
  std::string serves_nothing() const;
};

// file: for messages. Unknown keys at the top are ignored with a note (a newer manifest); an unknown key in an entry
// (or in a condition) drops that entry with a note; an unknown name (dtype: f8) matches nothing, with a note; an
// unknown feature is harmless, and noted; a bound (batch, seq_q, seq_kv) with anything but a max is an error, as is everything
// else that is wrong.
Result<Manifest> parse_manifest(std::string_view text, const std::string& file);

}  // namespace attnrt::core
