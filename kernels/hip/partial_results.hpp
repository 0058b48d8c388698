// kernels/hip/partial_results.hpp: merges results over parts of the keys into the result over all
//
//   lse = ln(sum of e^lse_i)        out = sum of e^(lse_i - lse) * out_i
//
// where out_i is normalised and lse_i the natural logarithm of the sum of its weights; -inf says
// that part i saw nothing. A sink counts once, here, as a part whose out is zero.
#pragma once

#include "kernels/hip/query_block.hpp"
#include "kernels/hip/work_list.hpp"

namespace kernels::hip {

// Four columns of a merged row.
struct MergedColumns {
  gpu::Floats<4> out;
  float lse;
};

// Merges in the order of the parts' numbers. lse_of(i), out_of(i): of part i; out_of gives a
// pointer to the four columns, aligned to 16 bytes.
template <class LseOf, class OutOf>
GPU_DEVICE MergedColumns merge_columns(int count, const LseOf& lse_of, const OutOf& out_of,
                                       bool has_sink, float sink) {
  const auto exists = [](float lse) { return lse != -gpu::kInfinity; };  // NaN does
  float largest = has_sink ? sink : -gpu::kInfinity;
  for (int i = 0; i < count; ++i) largest = gpu::max(largest, lse_of(i));
  MergedColumns merged{};
  GPU_UNROLL for (int c = 0; c < 4; ++c) merged.out[c] = 0;
  float sum = 0;
  const auto weight_of = [&](float lse) {
    return lse == largest ? 1 : gpu::exp2((lse - largest) * gpu::kLog2E);  // also if both are inf
  };
  if (has_sink && exists(sink)) sum = weight_of(sink);
  for (int i = 0; i < count; ++i) {
    const float lse = lse_of(i);
    if (!exists(lse)) continue;
    const float weight = weight_of(lse);
    const float* out = out_of(i);
    sum += weight;
    GPU_UNROLL for (int c = 0; c < 4; ++c) merged.out[c] = gpu::fma(weight, out[c], merged.out[c]);
  }
  const bool visible = sum > 0 || sum != sum;
  const float factor = visible ? 1 / sum : 0;
  GPU_UNROLL for (int c = 0; c < 4; ++c) merged.out[c] *= factor;
  merged.lse = visible ? largest + gpu::log2(sum) * gpu::kLn2 : -gpu::kInfinity;
  return merged;
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

// A workgroup of combine() takes one row of one cut tile, kCombineThreads pieces at a time.
inline constexpr int kCombineThreads = 128;
inline constexpr uint32_t kCombineSharedBytes = kCombineThreads * (16 + 4);

// RETURNS the maximum over the workgroup. at: kCombineThreads floats of workgroup memory.
GPU_DEVICE float max_of_workgroup(uint32_t at, float value) {
  const auto thread = gpu::thread();
  gpu::shared_store(at + thread * 4, value);
  gpu::barrier();
  for (uint32_t apart = kCombineThreads / 2; apart > 0; apart /= 2) {
    if (thread < apart) {
      value = gpu::max(value, gpu::shared_load<float>(at + (thread + apart) * 4));
      gpu::shared_store(at + thread * 4, value);
    }
    gpu::barrier();
  }
  value = gpu::shared_load<float>(at);
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
  const CutTile tile = cut_tile(params.work, cut);
  if (tile.pieces == 0 || row >= tile.item.rows) return;
  const PackedBlock block = block_of(params.work, tile.item);
  constexpr uint32_t kWeightsAt = 0, kSumsAt = kCombineThreads * 4;
  const auto lse_of = [&](int piece) { return *partial_lse(section, slot_of(cut, piece), row); };
  const bool has_sink = p.sinks != nullptr;
  const float sink = has_sink ? p.sinks[block.head(row) * p.sink_stride] : -gpu::kInfinity;
  float largest = sink;
  for (int piece = thread; piece < tile.pieces; piece += kCombineThreads)
    largest = gpu::max(largest, lse_of(piece));
  largest = max_of_workgroup(kWeightsAt, largest);
  const auto weight_of = [&](float lse) {
    if (lse == -gpu::kInfinity) return 0.0F;
    return lse == largest ? 1.0F : gpu::exp2((lse - largest) * gpu::kLog2E);
  };
  const int quads = p.head_dim_v / 4, groups = kCombineThreads / quads;
  const int group = thread / quads, column = thread % quads * 4;
  gpu::Floats<4> o;
  GPU_UNROLL for (int c = 0; c < 4; ++c) o[c] = 0;
  float sum = 0;  // the same in all threads: each adds all weights
  for (int first = 0; first < tile.pieces; first += kCombineThreads) {
    const int count = tile.pieces - first < kCombineThreads ? tile.pieces - first : kCombineThreads;
    if (thread < count)
      gpu::shared_store(kWeightsAt + static_cast<uint32_t>(thread) * 4,
                        weight_of(lse_of(first + thread)));
    gpu::barrier();
    for (int n = 0; n < count; ++n)
      sum += gpu::shared_load<float>(kWeightsAt + static_cast<uint32_t>(n) * 4);
    if (group < groups) {
      GPU_UNROLL_BY(4)
      for (int n = group; n < count; n += groups) {
        const float weight = gpu::shared_load<float>(kWeightsAt + static_cast<uint32_t>(n) * 4);
        if (weight == 0) continue;  // nothing was visible: its row is not used
        const auto bits =
            gpu::load128(partial_out(p, section, slot_of(cut, first + n), row) + column);
        GPU_UNROLL for (int c = 0; c < 4; ++c) {
          o[c] = gpu::fma(weight, __builtin_bit_cast(float, bits.word[c]), o[c]);
        }
      }
    }
    gpu::barrier();
  }
  gpu::Bits128 own;
  GPU_UNROLL for (int c = 0; c < 4; ++c) own.word[c] = __builtin_bit_cast(uint32_t, o[c]);
  gpu::shared_store(kSumsAt + static_cast<uint32_t>(thread) * 16, own);
  gpu::barrier();
  if (group != 0) return;
  for (int n = 1; n < groups; ++n) {
    const auto other =
        gpu::shared_load<gpu::Bits128>(kSumsAt + static_cast<uint32_t>(n * quads + thread) * 16);
    GPU_UNROLL for (int c = 0; c < 4; ++c) o[c] += __builtin_bit_cast(float, other.word[c]);
  }
  if (has_sink) sum += weight_of(sink);
  const bool visible = sum > 0 || sum != sum;
  MergedColumns merged;
  GPU_UNROLL for (int c = 0; c < 4; ++c) merged.out[c] = visible ? o[c] / sum : 0;
  merged.lse = visible ? largest + gpu::log2(sum) * gpu::kLn2 : -gpu::kInfinity;
  store_columns<T>(p, block, row, column, merged);
}

}  // namespace kernels::hip
