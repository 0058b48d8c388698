// kernels/hip/schedule.hpp: makes the list of work items of a run, on the device, from the lengths
// that are there: see work_list.hpp
//
// One workgroup makes the lists of all sections. It takes kScheduleThreads sequences at a time: a
// thread finds the extent and the cost of one, a prefix sum gives the place of its tiles, and then
// all threads write items, each of every kScheduleThreads-th tile.
#pragma once

#include "kernels/hip/work_list.hpp"

namespace kernels::hip {

inline constexpr int kScheduleThreads = 256;

// What the tiles of some sequences are, and what they cost. A prefix sum of it says where the next
// sequence begins.
struct Costs {
  int64_t cost;
  int64_t tiles;
  int64_t largest;  // cost of a tile
  int64_t empty;    // sequences with tiles that see no key

  GPU_DEVICE void add(const Costs& other) {
    cost += other.cost, tiles += other.tiles, empty += other.empty;
    if (other.largest > largest) largest = other.largest;
  }
};

// Where the list decides it, tiles are cut if whole ones would leave more than this part of the
// workgroups idle, in 1/16.
inline constexpr int64_t kIdleSixteenths = 2;
// More than any cost, so that nothing is cut.
inline constexpr int64_t kNoCuts = int64_t{1} << 62;

// One sequence's part of a section.
struct alignas(8) PartOfSection {
  Extent extent;
  int32_t rows;      // packed
  int32_t blocks;    // tiles of one head
  int64_t cost;      // of one tile
  int32_t is_empty;  // whether the first or the last tile sees no key

  GPU_DEVICE Costs costs(int32_t heads) const {
    const int64_t tiles = int64_t{blocks} * heads;
    return {tiles * cost, tiles, tiles == 0 ? 0 : cost, is_empty};
  }
};

// Two halves of sums, then the parts of as many sequences.
inline constexpr uint32_t kPartsAt = 2 * kScheduleThreads * sizeof(Costs),
                          kScheduleSharedBytes =
                              kPartsAt + kScheduleThreads * sizeof(PartOfSection);

class Scheduler {
 public:
  GPU_DEVICE explicit Scheduler(const ScheduleParams& params) : params_(params) {}

  GPU_DEVICE void run() {
    gpu::start_next_kernel();
    GPU_UNROLL_BY(1)
    for (int s = 0; s < params_.section_count; ++s) make(params_.sections[s]);
  }

 private:
  using Part = PartOfSection;

  GPU_DEVICE Part share_of(const WorkSection& section, int32_t sequence) const {
    const WorkParams& w = params_.work;
    Part part{extent_of(w, sequence), 0, 0, 1, 0};
    const int32_t queries = part.extent.q_length;
    if (queries < section.least_queries || queries > section.most_queries) return part;
    part.rows = queries * section.group;
    part.blocks = (part.rows + section.rows - 1) / section.rows;
    const Range seen = keys_of(section, sequence, part.extent, 0, part.rows);
    const int64_t steps =
        (int64_t{seen.end} - seen.begin + section.cut_keys - 1) / section.cut_keys;
    if (steps > 1) part.cost = steps;
    // What a query sees only moves forward, so tiles that see no key are the first or the last.
    const auto sees = [&](int32_t block) {
      const int32_t first = block * section.rows, left = part.rows - first;
      const Range keys =
          keys_of(section, sequence, part.extent, first, left < section.rows ? left : section.rows);
      return keys.begin < keys.end;
    };
    part.is_empty = part.rows > 0 && !(sees(0) && sees(part.blocks - 1));
    return part;
  }

  // The keys that some of these rows see. begin is rounded down to a step.
  GPU_DEVICE Range keys_of(const WorkSection& section, int32_t sequence, const Extent& extent,
                           int32_t first_row, int32_t rows) const {
    const AttentionParams p =
        params_of(params_.attention, params_.work, sequence, extent.q_length, extent.kv_length);
    const int32_t group = section.group;
    const Range first = visible_range(p, first_row / group),
                last = visible_range(p, (first_row + rows - 1) / group);
    const int32_t begin = first.begin / section.cut_keys * section.cut_keys;
    return {begin, last.end > begin ? last.end : begin};
  }

  GPU_DEVICE static uint32_t part_at(int thread) {
    return kPartsAt + static_cast<uint32_t>(thread) * sizeof(Part);
  }

  // ---- Prefix sums, in workgroup memory ----
  GPU_DEVICE static Costs sum_at(int index) {
    return gpu::shared_load<Costs>(static_cast<uint32_t>(index * sizeof(Costs)));
  }
  // Leaves the sum over threads 0 to i at place i, in the first half of workgroup memory or in the
  // second. RETURNS which.
  GPU_DEVICE static int prefix_sum(Costs own) {
    const int thread = static_cast<int>(gpu::thread());
    const auto put = [&](int half, Costs value) {
      gpu::shared_store(static_cast<uint32_t>((half * kScheduleThreads + thread) * sizeof(Costs)),
                        value);
    };
    put(0, own);
    gpu::barrier();
    int half = 0;
    for (int apart = 1; apart < kScheduleThreads; apart *= 2, half = 1 - half) {
      if (thread >= apart) {
        own.add(sum_at(half * kScheduleThreads + thread - apart));
      }
      put(1 - half, own);
      gpu::barrier();
    }
    return half;
  }

  // first: becomes the part of the thread's first sequence.
  GPU_DEVICE Costs total_of(const WorkSection& section, Part* first) const {
    Costs own{};
    const auto thread = static_cast<int32_t>(gpu::thread());
    for (int32_t s = thread; s < params_.work.sequences; s += kScheduleThreads) {
      const Part part = share_of(section, s);
      if (s == thread) *first = part;
      own.add(part.costs(section.heads));
    }
    const int half = prefix_sum(own);
    const Costs total = sum_at(half * kScheduleThreads + kScheduleThreads - 1);
    gpu::barrier();
    return total;
  }

  // Whether to cut tiles, so that all workgroups have the same work: else the last of them may
  // finish `largest` after the first.
  GPU_DEVICE static bool cuts_pay(const WorkSection& section, const Costs& total) {
    if (total.cost == 0) return false;
    const int64_t round = total.largest * section.workgroups,
                  whole = (total.cost + round - 1) / round * round;
    return total.cost * 16 < whole * (16 - kIdleSixteenths);
  }

  GPU_DEVICE void make(const WorkSection& section) {
    const int thread = static_cast<int>(gpu::thread());
    Part own{};
    const Costs total = total_of(section, &own);
    int64_t share = section.share;
    const bool cuts = section.by_shares && share == 0 ? cuts_pay(section, total) : share == 0;
    if (share == 0) {
      share = cuts ? (total.cost + section.cut_count - 1) / section.cut_count : kNoCuts;
      if (share == 0) share = 1;
    }
    if (thread == 0) {
      // A tile that is cut may have fewer keys than pieces.
      *gpu::global(section.head) = {cuts, cuts || total.empty != 0};
      if (section.taken != nullptr) *gpu::global(section.taken) = 0;
    }
    // Cuts at the end and past it.
    for (int64_t m = total.cost / share + (total.cost % share == 0 ? 0 : 1) + thread;
         m <= section.cut_count; m += kScheduleThreads) {
      gpu::global(section.cuts)[m] = {static_cast<int32_t>(total.tiles + total.cost / share), 0};
    }
    Costs before{};
    for (int32_t first = 0; first < params_.work.sequences; first += kScheduleThreads) {
      if (first > 0) {
        own = {};
        if (first + thread < params_.work.sequences) own = share_of(section, first + thread);
      }
      gpu::shared_store(part_at(thread), own);
      const Costs costs = own.costs(section.heads);
      const int at = prefix_sum(costs) * kScheduleThreads;
      const Costs sum = sum_at(at + kScheduleThreads - 1);
      for (int64_t tile = thread; tile < sum.tiles; tile += kScheduleThreads) {
        // The sequence that holds the tile: the first one whose sum is above it.
        int low = 0, high = kScheduleThreads - 1;
        while (low < high) {
          const int middle = (low + high) / 2;
          if (sum_at(at + middle).tiles > tile) {
            high = middle;
          } else {
            low = middle + 1;
          }
        }
        const Costs start = low == 0 ? Costs{} : sum_at(at + low - 1);
        const auto part = gpu::shared_load<Part>(part_at(low));
        const auto rest = static_cast<int32_t>(tile - start.tiles);
        write_tile(section, share, first + low, part, rest, before.tiles + tile,
                   before.cost + start.cost + rest * part.cost);
      }
      before.cost += sum.cost, before.tiles += sum.tiles;
      gpu::barrier();  // before the next sums
    }
  }

  // Writes the items and cuts of one tile. rest: its number in its sequence; u: the cost before it.
  GPU_DEVICE void write_tile(const WorkSection& section, int64_t share, int32_t sequence,
                             const Part& part, int32_t rest, int64_t tile, int64_t u) const {
    // The last queries see most keys, so they come first: one block of every head of a few, whose K
    // and V stay in the cache, then the block before it.
    const int32_t first_head = rest / (part.blocks * kHeadsTogether) * kHeadsTogether,
                  left = section.heads - first_head,
                  width = left < kHeadsTogether ? left : kHeadsTogether,
                  within = rest - first_head * part.blocks, head = first_head + within % width;
    const int32_t first_row = (part.blocks - 1 - within / width) * section.rows;
    const int32_t rows =
        part.rows - first_row < section.rows ? part.rows - first_row : section.rows;
    const Range keys = keys_of(section, sequence, part.extent, first_row, rows);
    const TileOfWork place{keys, part.cost, u};
    const Cuts cuts = cuts_of(place, share);
    WorkItem item{sequence,
                  head,
                  first_row,
                  rows,
                  0,
                  0,
                  0,
                  part.extent.q_first,
                  part.extent.q_length,
                  part.extent.kv_first,
                  part.extent.kv_length,
                  static_cast<int32_t>(diagonal_offset(params_.attention, sequence))};
    const auto first = static_cast<int32_t>(tile + cuts.first - 1);
    if (cuts.at_begin) gpu::global(section.cuts)[cuts.first - 1] = {first, 0};
    for (int32_t piece = 0; piece < cuts.pieces; ++piece) {
      set_piece(place, cuts, share, section.cut_keys, piece, &item);
      gpu::global(section.items)[first + piece] = item;
      if (piece > 0) {
        gpu::global(section.cuts)[cuts.first + piece - 1] = {first + piece,
                                                             piece == 1 ? cuts.pieces : 0};
      }
    }
    if (cuts.at_end) {
      item.rows = 0;
      gpu::global(section.items)[first + cuts.pieces] = item;
    }
  }

  const ScheduleParams& params_;
};

}  // namespace kernels::hip
