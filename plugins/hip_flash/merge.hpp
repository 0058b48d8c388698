// plugins/hip_flash/merge.hpp: the extension attnrt.merge/1 on a GPU
#pragma once

#include "attnrt/plugin.h"

namespace attnrt_hip_flash {

extern const attnrt_merging merging;

}  // namespace attnrt_hip_flash
