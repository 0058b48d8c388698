// kernels/hip/launch/pipelined_attention.hpp: plans and launches of the loop of sm_90a
#pragma once

#include <string>

#include "kernels/hip/launch/launch.hpp"
#include "kernels/hip/params.hpp"

namespace kernels::hip {

// Which kernel of a code object serves a dense problem: see Kind.
Kind kind_of(const Problem& problem);

// The largest head_dim and head_dim_v of the loop of sm_90a.
inline constexpr int kPipelinedMaxDim = 512;
// The largest head_dim over a list of work, where values are in keys (v_in_k): latent attention
// (MLA) has 512 columns of values, and 64 more of keys.
inline constexpr int kPipelinedMaxDimOfBoth = 576;

// Whether the loop of sm_90a serves a dense problem.
bool is_pipelined(const Problem& problem, const Target& target);

// REQUIRES: is_pipelined.
bool pipelined_supported(const Problem& problem, const Target& target, std::string* reason);
FlashPlan plan_pipelined(const Problem& problem, const Target& target);
int32_t pipelined_launches(const FlashPlan& plan, const Problem& problem, const Args& args,
                           const AttentionParams& p, void* workspace, Launch* out);

// Adds to `count` launches of a dense problem's kernels those of which each run chooses one by its
// mask's strides. RETURNS the new count. They only tell which kernels there are.
int32_t add_kernels_of_masks(const FlashPlan& plan, const Problem& problem, int32_t count,
                             Launch* out);

// ---- The same loop over a list of work ----

// Whether it serves the items of a problem that is_listed.
bool is_pipelined_list(const Problem& problem, const Target& target);

// Fills what depends on the kernel. REQUIRES: is_pipelined_list.
void set_pipelined_section(const Problem& problem, const Target& target,
                           ListPlan::Section* section);

// Writes the launch of a section's kernel. RETURNS false if no tensor map can describe the tensors.
bool set_pipelined_launch(const ListPlan::Section& section, const Problem& problem,
                          const Args& args, const ServingParams& params, uint32_t workgroups,
                          Launch* out);

// Writes a launch that sets a section's counter of taken items to 0.
void set_counter_launch(const char* object, uint32_t* taken, Launch* out);

}  // namespace kernels::hip
