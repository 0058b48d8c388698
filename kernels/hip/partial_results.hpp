// kernels/hip/partial_results.hpp: merges results over parts of the keys into the result over all
//
// Part i has a normalised row o_i, and the reference m_i and the sum l_i of its online softmax.
// With m the largest m_i,
//
//   w_i = l_i * 2^((m_i - m) * exp_scale)      l = sum of w_i      out = sum of w_i * o_i / l
//
// A sink counts once, here. attnrt.merge/1 (merge.hpp) has the lse of each part in place of m_i and
// l_i. That would not do here: where a mask adds about -3.4e38 to all scores of a row, lse has no
// digits left for the sum.
#pragma once

#include "kernels/hip/merge.hpp"
#include "kernels/hip/online_softmax.hpp"
#include "kernels/hip/query_block.hpp"
#include "kernels/hip/work_list.hpp"

namespace kernels::hip {

// The reference and the sum of a part.
struct alignas(8) PartSums {
  float reference, sum;
};
GPU_DEVICE float weight_of(const PartSums& part, float largest, float exp_scale) {
  if (part.sum == 0) return 0;  // nothing was visible; its row is zeros
  return part.reference == largest ? part.sum
                                   : part.sum * gpu::exp2((part.reference - largest) * exp_scale);
}

// RETURNS the merged columns. merged.out: the sum of w_i * o_i; sum: of w_i.
template <class Softmax>
GPU_DEVICE MergedColumns finished(const AttentionParams& p, MergedColumns merged, float largest,
                                  float sum, bool has_sink, float sink) {
  const auto result = Softmax::finish(largest, sum, sum, p.exp_scale, has_sink, sink, true);
  GPU_UNROLL for (int c = 0; c < 4; ++c) merged.out[c] *= result.output_factor;
  merged.lse = result.lse;
  return merged;
}

// Merges kCount parts in the order of their numbers. sums_of(i): of part i; out_of(i): its four
// columns, as words.
template <int kCount, class Softmax, class SumsOf, class OutOf>
GPU_DEVICE MergedColumns merge_parts(const AttentionParams& p, const SumsOf& sums_of,
                                     const OutOf& out_of, PartSums* all) {
  PartSums part[kCount];
  float largest = -gpu::kInfinity;
  GPU_UNROLL for (int i = 0; i < kCount; ++i) {
    part[i] = sums_of(i);
    largest = gpu::max(largest, part[i].reference);
  }
  float sum = 0;
  MergedColumns merged{};
  GPU_UNROLL for (int c = 0; c < 4; ++c) merged.out[c] = 0;
  GPU_UNROLL for (int i = 0; i < kCount; ++i) {
    const float w = weight_of(part[i], largest, p.exp_scale);
    const gpu::Bits128 out = out_of(i);
    sum += w;
    GPU_UNROLL for (int c = 0; c < 4; ++c) {
      merged.out[c] = gpu::fma(w, __builtin_bit_cast(float, out.word[c]), merged.out[c]);
    }
  }
  *all = {largest, sum};
  return merged;
}

// Where an item's partial results lie: one row of head_dim_v floats for each of its rows.
GPU_DEVICE float* partial_out(const AttentionParams& p, const WorkSection& section, int32_t slot,
                              int32_t row) {
  return section.partial_out + (int64_t{slot} * section.slot_rows + row) * p.head_dim_v;
}
GPU_DEVICE PartSums* partial_sums(const WorkSection& section, int32_t slot, int32_t row) {
  return static_cast<PartSums*>(section.partial_sums) + int64_t{slot} * section.slot_rows + row;
}

// Stores a lane's rows of one piece of a tile that was cut.
template <class Tile>
GPU_DEVICE void store_partial_rows(const AttentionParams& p, const WorkSection& section,
                                   const WorkItem& item, const Tile& tile,
                                   const typename Tile::Output& o,
                                   const OnlineSoftmax<Tile>& softmax) {
  GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
    const auto part = softmax.part(tile, slot);
    const int r = tile.row(slot);
    const bool exists = r < item.rows;
    tile.store_float(p, o, slot, part.output_factor, partial_out(p, section, item.slot, r), exists);
    if (exists && tile.first_key() == 0)
      *partial_sums(section, item.slot, r) = {part.reference, part.sum};
  }
}

// Stores four columns of a packed row of out, and its lse with the first of them.
template <class T>
GPU_DEVICE void store_columns(const AttentionParams& p, const PackedBlock& block, int32_t row,
                              int32_t column, const MergedColumns& merged) {
  using Storage = typename T::Storage;
  Storage* out = static_cast<Storage*>(p.out) + block.offsets(p.out_stride)(row) + column;
  store4(T{}, out, merged.out[0], merged.out[1], merged.out[2], merged.out[3]);
  if (p.lse != nullptr && column == 0) p.lse[block.offsets(lse_strides(p))(row)] = merged.lse;
}

// Stores NaN as out and lse of the rows of a stale item that exist now. thread: the calling one's
// number among those that do this.
template <class T>
GPU_DEVICE void store_nan(const AttentionParams& p, const WorkParams& w, const WorkItem& item,
                          int32_t thread, int32_t threads) {
  const Extent now = extent_of(w, item.sequence);
  WorkItem here = item;
  here.q_first = now.q_first;
  const PackedBlock block = block_of(w.section, here);
  const int32_t columns = p.head_dim_v / 4;
  MergedColumns nan;
  nan.lse = __builtin_nanf("");
  GPU_UNROLL for (int c = 0; c < 4; ++c) nan.out[c] = nan.lse;
  for (int32_t i = thread; i < item.rows * columns; i += threads) {
    const int32_t row = i / columns;
    if (block.query(row) < now.q_length)
      store_columns<T>(p, block, row, (i - row * columns) * 4, nan);
  }
}

// A workgroup of combine() takes rows of one cut tile, kCombineThreads pieces at a time. Only the
// list knows how many tiles are cut, so the grid has room for the most. kCombineWorkgroups limits
// those of a tile, since idle workgroups take time to start.
inline constexpr int kCombineThreads = 128, kCombineWorkgroups = 32;
inline constexpr uint32_t kCombineSharedBytes = kCombineThreads * (16 + 4);

// RETURNS f over the values of all threads of a workgroup, in an order that does not change. at: a
// float of workgroup memory for each 32 lanes.
template <class F>
GPU_DEVICE float over_workgroup(uint32_t at, float value, const F& f) {
  GPU_UNROLL for (int bit = 1; bit < 32; bit *= 2) value = f(value, gpu::exchange<32>(value, bit));
  if (gpu::thread() % 32 == 0) gpu::shared_store(at + gpu::thread() / 32 * 4, value);
  gpu::barrier();
  value = gpu::shared_load<float>(at);
  GPU_UNROLL for (uint32_t n = 1; n < kCombineThreads / 32; ++n) value =
      f(value, gpu::shared_load<float>(at + n * 4));
  gpu::barrier();
  return value;
}

// Merges the pieces of one row of a tile that was cut. Lanes side by side take the columns; group g
// of lanes takes pieces g, g + groups, ..., and the sums are added at the end.
template <class T, class Softmax>
GPU_DEVICE void combine_row(const ServingParams& params, const CutTile& tile, int32_t row) {
  const AttentionParams& p = params.attention;
  const WorkSection& section = params.work.section;
  const int thread = static_cast<int>(gpu::thread());
  const bool has_sink = p.sinks != nullptr;
  const PackedBlock block = block_of(section, tile.item);
  const float sink = has_sink ? p.sinks[block.head(row) * p.sink_stride] : 0;
  constexpr uint32_t kWeightsAt = 0, kSumsAt = kCombineThreads * 4;
  const auto sums_of = [&](int piece) {
    return *partial_sums(section, slot_of(tile.cut, piece), row);
  };
  float largest = -gpu::kInfinity;
  GPU_UNROLL_BY(1)
  for (int piece = thread; piece < tile.pieces; piece += kCombineThreads)
    largest = gpu::max(largest, sums_of(piece).reference);
  largest = over_workgroup(kWeightsAt, largest, [](float a, float b) { return gpu::max(a, b); });
  const int quads = p.head_dim_v / 4, groups = kCombineThreads / quads;
  const int group = thread / quads, column = (thread - group * quads) * 4;
  MergedColumns merged{};
  GPU_UNROLL for (int c = 0; c < 4; ++c) merged.out[c] = 0;
  float own_sum = 0;
  GPU_UNROLL_BY(1)
  for (int first = 0; first < tile.pieces; first += kCombineThreads) {
    const int count = tile.pieces - first < kCombineThreads ? tile.pieces - first : kCombineThreads;
    float weight = 0;
    if (thread < count) weight = weight_of(sums_of(first + thread), largest, p.exp_scale);
    own_sum += weight;
    gpu::shared_store(kWeightsAt + static_cast<uint32_t>(thread) * 4, weight);
    gpu::barrier();
    if (group < groups) {
      GPU_UNROLL_BY(4)
      for (int n = group; n < count; n += groups) {
        const float w = gpu::shared_load<float>(kWeightsAt + static_cast<uint32_t>(n) * 4);
        // Not gpu::load128, whose cache may be older than the kernel before this one.
        const auto bits = *reinterpret_cast<const gpu::Bits128*>(
            gpu::global(partial_out(p, section, slot_of(tile.cut, first + n), row) + column));
        GPU_UNROLL for (int c = 0; c < 4; ++c) {
          merged.out[c] = gpu::fma(w, __builtin_bit_cast(float, bits.word[c]), merged.out[c]);
        }
      }
    }
    gpu::barrier();
  }
  const float sum = over_workgroup(kWeightsAt, own_sum, [](float a, float b) { return a + b; });
  gpu::Bits128 own;
  GPU_UNROLL for (int c = 0; c < 4; ++c) {
    const float value = merged.out[c];  // a copy: clang's bit_cast of an element takes element 0
    own.word[c] = __builtin_bit_cast(uint32_t, value);
  }
  gpu::shared_store(kSumsAt + static_cast<uint32_t>(thread) * 16, own);
  gpu::barrier();
  if (group == 0) {
    GPU_UNROLL_BY(1)
    for (int n = 1; n < groups; ++n) {
      const auto other =
          gpu::shared_load<gpu::Bits128>(kSumsAt + static_cast<uint32_t>(n * quads + thread) * 16);
      GPU_UNROLL for (int c = 0; c < 4; ++c) {
        merged.out[c] += __builtin_bit_cast(float, other.word[c]);
      }
    }
    store_columns<T>(p, block, row, column,
                     finished<Softmax>(p, merged, largest, sum, has_sink, sink));
  }
  gpu::barrier();  // before the next row
}

// Merges the pieces of each tile that was cut: workgroup (i, n) takes rows n,
// n + combine_workgroups, ... of cut_tile i.
// Softmax: any OnlineSoftmax, for its rule of how a row ends.
template <class T, class Softmax>
GPU_DEVICE void combine(const ServingParams& params) {
  // The list is complete: the attention kernel waited for it before it let this one start.
  const CutTile tile = cut_tile(params.work, gpu::block_x());
  // Every workgroup waits: what comes after this kernel in the stream waits for it alone.
  gpu::wait_for_previous_kernel();
  if (tile.pieces == 0) return;
  const auto first = static_cast<int32_t>(gpu::block_y());
  if (is_stale(params.attention, params.work, tile.item)) {
    if (first == 0) {
      store_nan<T>(params.attention, params.work, tile.item, static_cast<int32_t>(gpu::thread()),
                   kCombineThreads);
    }
    return;
  }
#if defined(GPU_AMD)
  // A workgroup for each row: AMD's lists do not decide whether to cut. With the loop below, code
  // of clang 19 for gfx1100 read outside of all arrays on the emulator.
  if (first < tile.item.rows) combine_row<T, Softmax>(params, tile, first);
#else
  for (int32_t row = first; row < tile.item.rows; row += params.work.section.combine_workgroups)
    combine_row<T, Softmax>(params, tile, row);
#endif
}

}  // namespace kernels::hip
