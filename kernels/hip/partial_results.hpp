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

inline constexpr int kCombineThreads = 128;

// Merges the pieces of each tile that was cut. A workgroup takes one cut.
template <class T>
GPU_DEVICE void combine(const ServingParams& params) {
  const AttentionParams& p = params.attention;
  const WorkSection& section = params.work.section;
  const auto first_cut = static_cast<int32_t>(gpu::block_x());
  const Cut cut = cut_at(params, first_cut);
  if (cut.pieces == 0) return;
  const WorkItem item = item_at(params, cut.item - 1);  // the tile's first piece
  const PackedBlock block = block_of(params.work, item);
  const int32_t columns = p.head_dim_v / 4;
  const bool has_sink = p.sinks != nullptr;
  for (int32_t i = static_cast<int32_t>(gpu::thread()); i < item.rows * columns;
       i += kCombineThreads) {
    const int32_t row = i / columns, column = i % columns * 4;
    const auto slot = [&](int piece) { return slot_of(first_cut, piece); };
    store_columns<T>(p, block, row, column,
                     merge_columns(
                         cut.pieces, [&](int n) { return *partial_lse(section, slot(n), row); },
                         [&](int n) { return partial_out(p, section, slot(n), row) + column; },
                         has_sink, has_sink ? p.sinks[block.head(row) * p.sink_stride] : 0));
  }
}

}  // namespace kernels::hip
