// kernels/hip/partial_results.hpp: merges results over parts of the keys into the result over all
//
//   lse = ln(sum of e^lse_i)        out = sum of e^(lse_i - lse) * out_i
//
// where out_i is normalised and lse_i the natural logarithm of the sum of its weights; -inf says
// that part i saw nothing. A sink counts once, here, as a part whose out is zero.
#pragma once

#include "kernels/hip/merge.hpp"
#include "kernels/hip/query_block.hpp"
#include "kernels/hip/work_list.hpp"

namespace kernels::hip {

// The weight of a part of this lse. A part that saw nothing has weight 0, and zeros as its out.
GPU_DEVICE float weight_of_part(float lse, float largest) {
  if (lse == -gpu::kInfinity) return 0;
  return lse == largest ? 1 : gpu::exp2((lse - largest) * gpu::kLog2E);  // also if both are inf
}
GPU_DEVICE MergedColumns finished(MergedColumns merged, float sum, float largest) {
  const bool visible = sum > 0 || sum != sum;  // NaN was seen, too
  const float factor = visible ? 1 / sum : 0;
  GPU_UNROLL for (int c = 0; c < 4; ++c) merged.out[c] *= factor;
  merged.lse = visible ? largest + gpu::log2(sum) * gpu::kLn2 : -gpu::kInfinity;
  return merged;
}

// Merges kCount parts in the order of their numbers. lse_of(i): of part i; out_of(i): its four
// columns, as words.
template <int kCount, class LseOf, class OutOf>
GPU_DEVICE MergedColumns merge_parts(const LseOf& lse_of, const OutOf& out_of, bool has_sink,
                                     float sink) {
  float weight[kCount], largest = has_sink ? sink : -gpu::kInfinity;
  GPU_UNROLL for (int i = 0; i < kCount; ++i) {
    weight[i] = lse_of(i);
    largest = gpu::max(largest, weight[i]);
  }
  const auto weight_of = [&](float lse) { return weight_of_part(lse, largest); };
  float sum = has_sink ? weight_of(sink) : 0;
  MergedColumns merged{};
  GPU_UNROLL for (int c = 0; c < 4; ++c) merged.out[c] = 0;
  GPU_UNROLL for (int i = 0; i < kCount; ++i) {
    const float w = weight_of(weight[i]);
    const gpu::Bits128 out = out_of(i);
    sum += w;
    GPU_UNROLL for (int c = 0; c < 4; ++c) {
      merged.out[c] = gpu::fma(w, __builtin_bit_cast(float, out.word[c]), merged.out[c]);
    }
  }
  return finished(merged, sum, largest);
}

// Where an item's partial results lie: one row of head_dim_v floats for each of its rows.
GPU_DEVICE float* partial_out(const AttentionParams& p, const WorkSection& section, int32_t slot,
                              int32_t row) {
  return section.partial_out + (int64_t{slot} * section.rows + row) * p.head_dim_v;
}
GPU_DEVICE float* partial_lse(const WorkSection& section, int32_t slot, int32_t row) {
  return section.partial_lse + int64_t{slot} * section.rows + row;
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

// Stores NaN as out and lse of the rows of a stale item that exist now, by a workgroup of kThreads.
template <class T, int kThreads>
GPU_DEVICE void store_nan(const ServingParams& params, const WorkItem& item) {
  const AttentionParams& p = params.attention;
  const Extent now = extent_of(params.work, item.sequence);
  WorkItem here = item;
  here.q_first = now.q_first;
  const PackedBlock block = block_of(params.work, here);
  const int32_t columns = p.head_dim_v / 4;
  MergedColumns nan;
  nan.lse = __builtin_nanf("");
  GPU_UNROLL for (int c = 0; c < 4; ++c) nan.out[c] = nan.lse;
  for (int32_t i = static_cast<int32_t>(gpu::thread()); i < item.rows * columns; i += kThreads) {
    const int32_t row = i / columns;
    if (block.query(row) < now.q_length)
      store_columns<T>(p, block, row, (i - row * columns) * 4, nan);
  }
}

// A workgroup of combine() takes one row of one cut tile, kCombineThreads pieces at a time.
inline constexpr int kCombineThreads = 128;
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

// Merges the pieces of each tile that was cut: workgroup (cut, row). Lanes side by side take the
// columns, and groups of lanes every so many-th piece, whose sums they add at the end.
template <class T>
GPU_DEVICE void combine(const ServingParams& params) {
  const AttentionParams& p = params.attention;
  const WorkSection& section = params.work.section;
  const uint32_t cut = gpu::block_x();
  const auto row = static_cast<int32_t>(gpu::block_y()), thread = static_cast<int>(gpu::thread());
  // The list was complete before the kernel started whose results this one merges.
  const CutTile tile = cut_tile(params.work, cut);
  if (tile.pieces == 0 || row >= tile.item.rows) return;
  if (is_stale(params, tile.item)) {
    if (row == 0) store_nan<T, kCombineThreads>(params, tile.item);
    return;
  }
  const PackedBlock block = block_of(params.work, tile.item);
  const bool has_sink = p.sinks != nullptr;
  const float sink = has_sink ? p.sinks[block.head(row) * p.sink_stride] : -gpu::kInfinity;
  gpu::wait_for_previous_kernel();

  constexpr uint32_t kWeightsAt = 0, kSumsAt = kCombineThreads * 4;
  const auto lse_of = [&](int piece) { return *partial_lse(section, slot_of(cut, piece), row); };
  float largest = sink;
  GPU_UNROLL_BY(1)
  for (int piece = thread; piece < tile.pieces; piece += kCombineThreads)
    largest = gpu::max(largest, lse_of(piece));
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
    if (thread < count) weight = weight_of_part(lse_of(first + thread), largest);
    own_sum += weight;
    gpu::shared_store(kWeightsAt + static_cast<uint32_t>(thread) * 4, weight);
    gpu::barrier();
    if (group < groups) {
      GPU_UNROLL_BY(4)
      for (int n = group; n < count; n += groups) {
        const float w = gpu::shared_load<float>(kWeightsAt + static_cast<uint32_t>(n) * 4);
        const auto bits =
            gpu::load128(partial_out(p, section, slot_of(cut, first + n), row) + column);
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
    own.word[c] = __builtin_bit_cast(uint32_t, merged.out[c]);
  }
  gpu::shared_store(kSumsAt + static_cast<uint32_t>(thread) * 16, own);
  gpu::barrier();
  if (group != 0) return;
  GPU_UNROLL_BY(1)
  for (int n = 1; n < groups; ++n) {
    const auto other =
        gpu::shared_load<gpu::Bits128>(kSumsAt + static_cast<uint32_t>(n * quads + thread) * 16);
    GPU_UNROLL for (int c = 0; c < 4; ++c) {
      merged.out[c] += __builtin_bit_cast(float, other.word[c]);
    }
  }
  const float sink_weight = has_sink ? weight_of_part(sink, largest) : 0;
  store_columns<T>(p, block, row, column, finished(merged, sum + sink_weight, largest));
}

}  // namespace kernels::hip
