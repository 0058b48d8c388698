// kernels/hip/launch/launch.hpp: plans of the GPU kernels, and the launches of one run
#pragma once

#include <cstdint>
#include <string>

#include "kernels/common/problem.hpp"
#include "kernels/hip/launch/tensor_map.hpp"

namespace kernels::hip {

// One kernel over a grid of workgroups. params holds its one argument, params_bytes of it. The
// tensor maps in it are still to be encoded, map_count of them.
struct Launch {
  const char* object;
  const char* kernel;
  uint32_t grid[3];
  uint32_t block;
  uint32_t shared_bytes;
  uint32_t params_bytes;
  // Whether its workgroups may start while those of the launch before still run: the kernel waits
  // for them itself. Only for code of sm_90 and newer.
  bool overlaps = false;
  uint32_t map_count = 0;
  TensorMapRequest maps[6];
  alignas(kTensorMapAlignment) unsigned char params[4096];
};

// Sets all of a launch along x but its maps and params: of these it writes only what is used, since
// clearing the rest would cost more than all else that a run does here.
inline void begin(Launch* launch, const char* object, const char* kernel, uint32_t workgroups,
                  uint32_t block, uint32_t shared_bytes, uint32_t params_bytes) {
  launch->object = object, launch->kernel = kernel;
  launch->grid[0] = workgroups, launch->grid[1] = launch->grid[2] = 1;
  launch->block = block, launch->shared_bytes = shared_bytes;
  launch->params_bytes = params_bytes;
  launch->overlaps = false, launch->map_count = 0;
}

// What launches of the kernels that take their work from a list need: see work_list.hpp.
struct ListPlan {
  // One kernel, and its section of the list.
  struct Section {
    const char* kernel = nullptr;  // null: the plan does not use it
    const char* object = nullptr;
    uint32_t block = 0, shared_bytes = 0;
    uint32_t workgroups = 0;  // of its grid
    int32_t rows = 0, slot_rows = 0, cut_keys = 0, cut_count = 0;
    int64_t share = 0;
    bool by_shares = false;                          // as in WorkSection
    int32_t group = 0;                               // heads whose rows are packed
    int64_t items = 0;                               // the most items
    int32_t least_queries = 0, most_queries = 0;     // of a sequence that belongs here
    int64_t head_at = 0, items_at = 0, cuts_at = 0;  // bytes from the workspace's first
    int64_t partial_out_at = 0, partial_sums_at = 0;
    int64_t taken_at = 0;         // with is_pipelined
    bool is_pipelined = false;    // its kernel is sm_90a's
    uint32_t box_keys = 0;        // with is_pipelined: see PipelinedParams
    bool values_in_keys = false;  // with is_pipelined: whether V is read in K's place
  };
  Section decode, prefill;
  bool has_list = false;   // else all sequences are alike: one tile for each of their groups
  int64_t list_bytes = 0;  // of the lists, which come first in the workspace
  bool overlaps = false;   // see Launch
};

struct FlashPlan {
  const char* kernel = nullptr;  // the fused kernel's name
  int64_t workspace_bytes = 0;
  const char* object = nullptr;
  uint32_t block = 0, shared_bytes = 0, rows = 0, keys = 0;
  // Only for sm_90a's loop; 0 for the other one.
  uint32_t box_columns = 0;     // columns in one copy of q, k or v
  uint32_t workgroups = 0;      // the largest grid: one for each multiprocessor
  bool values_in_keys = false;  // as in ListPlan::Section
  // Only for the kernels that take their work from a list; else both kernel names are null.
  ListPlan list;
  // Whether the tiles of every mask that can be read in words are looked at before, also where that
  // does not pay. For tests.
  bool always_scans_masks = false;
};
struct UnfusedPlan {
  const char* kernel = nullptr;  // names of all five, for display
  int64_t workspace_bytes = 0;
  const char* object = nullptr;
  uint32_t block = 0, shared_bytes = 0, qk_shared_bytes = 0, rows = 0, keys = 0;
};

// The GPU that a plan is for.
struct Target {
  const char* arch;  // of the newest code object that runs on it: "gfx1100", "sm_90a"; "compute_80"
                     // if it is PTX
  int32_t multiprocessors = 1;
  // The same of serving_attention's code object; null: arch. (sm_90a has none.)
  const char* list_arch = nullptr;
};

// Whether the kernels can solve the problem; if not, reason says why.
bool flash_supported(const Problem& problem, const Target& target, std::string* reason);
bool unfused_supported(const Problem& problem, const Target& target, std::string* reason);

// REQUIRES: the problem is supported.
FlashPlan plan_flash(const Problem& problem, const Target& target);
UnfusedPlan plan_unfused(const Problem& problem, const Target& target);

// What launches() returns for tensors that the kernels cannot read.
inline constexpr int32_t kRowsTooFarApart = -1;  // rows of k or v: 2^25 elements or more
inline constexpr int32_t kNoTensorMap = -2;      // see request_for

// Writes the launches of one run, in order, to out, which has room for 8. RETURNS how many: 0 if
// there is nothing to do, or one of the two above. schedule: what schedule_launches filled for
// these sizes; null: the run makes its own, if it needs one.
int32_t launches(const FlashPlan& plan, const Problem& problem, const Args& args, void* workspace,
                 Launch* out, void* schedule = nullptr);
int32_t launches(const UnfusedPlan& plan, const Problem& problem, const Args& args, void* workspace,
                 Launch* out);

// Writes a launch for each kernel that some run of the plan may have, for its names and sizes.
// args: as large as the bounds. RETURNS how many, as launches does.
int32_t kernels_of(const FlashPlan& plan, const Problem& problem, const Args& args, Launch* out);
int32_t kernels_of(const UnfusedPlan& plan, const Problem& problem, const Args& args, Launch* out);

// The lists of work of a run, made by themselves so that several runs can share them. bytes: 0 if
// the plan needs none. They must be at a multiple of 256.
int64_t schedule_bytes(const FlashPlan& plan);
int32_t schedule_launches(const FlashPlan& plan, const Problem& problem, const Args& args,
                          void* schedule, Launch* out);

}  // namespace kernels::hip
