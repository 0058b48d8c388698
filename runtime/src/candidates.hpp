// runtime/src/candidates.hpp: the candidates step: who may serve a problem, and why others may not
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend.hpp"
#include "problem/problem.hpp"

namespace attnrt::core {

class Snapshot;  // snapshot.hpp

// One version of a backend on one device.
struct Candidate {
  std::shared_ptr<const FoundPlugin> plugin;
  std::shared_ptr<const Backend> backend;  // absent: not loaded, so its manifest alone is judged
  Device device;
  std::string out_of_memory;  // why it could not be loaded for now; "" if that is not the reason
};

// "flash 1.0.0", or the file's path if it has no manifest.
std::string plugin_label(const FoundPlugin& plugin);

// A plugin that cannot be a candidate: broken, or without a device that the problem can use.
struct ExcludedPlugin {
  std::shared_ptr<const FoundPlugin> plugin;
  std::string reason;
};

struct Candidates {
  std::vector<Candidate> list;
  std::vector<ExcludedPlugin> excluded;
};

// Lists the candidates for a problem, in the order of the snapshot's plugins. Loads the backends
// that may serve it; a version that the policy never lets serve becomes a candidate without being
// loaded, so that selection can say why it is out. So does one whose load ran out of memory, since
// the policy ranks it all the same.
//
// arch: only devices of this architecture; empty: of any.
// suppose_device: if no backend has the problem's device, acts as if this machine had it, with that
// arch. Each plugin whose manifest names this kind of device then becomes a candidate without a
// backend. For explain, which may ask about another machine.
Candidates find_candidates(const Snapshot& snapshot, const Problem& problem,
                           const std::string& arch, bool suppose_device);

}  // namespace attnrt::core
