// runtime/src/merge.hpp: merges results over parts of the keys, on a backend that offers it
#pragma once

#include <vector>

#include "breaker.hpp"
#include "snapshot.hpp"

namespace attnrt::core {

// Checks the tensors, and merges them on the best enabled backend of the device that offers
// attnrt.merge/1: by priority, then by version, newest first. in_rollout: versions that merge only
// if nothing else does, and not at all if they were rolled back. Errors: INVALID_ARGUMENT for
// tensors that do not fit together, UNSUPPORTED with each backend's reason if none offers it, or
// the backend's error. device_type: where the tensors are. args: as the application gave them.
attnrt_status merge(const Snapshot& snapshot, const std::vector<Quarantine::HeldBack>& in_rollout,
                    int32_t device_type, const MergeArgs& args, attnrt_error* error);

}  // namespace attnrt::core
