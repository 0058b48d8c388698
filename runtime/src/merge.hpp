// runtime/src/merge.hpp: merges results over parts of the keys, on a backend that offers it
#pragma once

#include "snapshot.hpp"

namespace attnrt::core {

// Checks the tensors, and merges them on the best enabled backend of the device that offers
// attnrt.merge/1: by priority, then by version, newest first. A version that its rollout
// holds back merges only if nothing else does. Errors: INVALID_ARGUMENT for
// tensors that do not fit together, UNSUPPORTED with each backend's reason if none offers it, or
// the backend's error. device_type: where the tensors are. args: as the application gave them.
attnrt_status merge(const Snapshot& snapshot, int32_t device_type, const MergeArgs& args,
                    attnrt_error* error);

}  // namespace attnrt::core
