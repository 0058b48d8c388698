// kernels/hip/launch/listed_attention.hpp: plans and launches of the kernels that take their work
// from a list
#pragma once

#include <string>

#include "kernels/hip/launch/launch.hpp"

namespace kernels::hip {

// Whether these kernels serve the problem: its sequences differ in length, its keys lie in pages,
// K and V are of 8 bits, or there are at most 32 queries.
bool is_listed(const Problem& problem);

// REQUIRES: is_listed.
bool listed_supported(const Problem& problem, std::string* reason);
FlashPlan plan_listed(const Problem& problem, const Target& target);
int32_t listed_launches(const FlashPlan& plan, const Problem& problem, const Args& args,
                        void* workspace, Launch* out, void* schedule);

}  // namespace kernels::hip
