// runtime/src/manifest.hpp: what a backend can do, as its manifest says
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
  bool unloadable = false;           // the library may be unmapped after its last use
  std::vector<Entry> entries;        // `supports`: a problem fits if it fits one entry
  std::vector<std::string> notes;  // parts that this runtime does not know, and what became of them

  // Returns the reasons why the problem fits no entry on a device of this arch ("": a device
  // without one); none if it fits. An arch that is not listed is the first reason. The others are
  // those of the entry that comes closest: the one with the fewest reasons, then one for the
  // problem's dtype, then the first. Only an entry's own condition on `device` looks at
  // problem.device_type; the manifest's devices are not compared with it.
  // REQUIRES: problem is as it would be on the candidate's device.
  std::vector<std::string> refusals(const Problem& problem, std::string_view arch) const;

  // Returns why this runtime can use it for no problem: every entry was dropped, or no device is
  // known. "": it can.
  std::string serves_nothing() const;
};

// Parses a manifest, which may be written for a newer runtime. file: for messages. Each of these
// gets a note:
//   - an unknown key at the top is ignored
//   - an unknown key in an entry, or in a condition, drops that entry
//   - an unknown name (dtype: f8) matches nothing
//   - an unknown feature is ignored
// An entry that does not name dtype, mask, mask_dtype or align allows the values of ABI 1.0; one
// that does not name kv_dtype, kv_scale or out_dtype allows only off (none).
// Errors: UNSUPPORTED for a manifest of another major version of the ABI, and then for one with
// `requires`, before anything else of it is looked at: its other keys may be anything.
// INVALID_ARGUMENT, "file:line:column: ...", for everything else that is wrong, and for a bound
// (batch, seq_q, seq_kv) with anything but a max.
Result<Manifest> parse_manifest(std::string_view text, const std::string& file);

}  // namespace attnrt::core
