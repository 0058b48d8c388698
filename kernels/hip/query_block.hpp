// kernels/hip/query_block.hpp: which queries the rows of one workgroup are, and where their rows of
// q, out, lse and mask lie
//
//   query(r)           the query of row r
//   head(r)            its head
//   offsets(strides)   where its row lies in a tensor with these strides: see Offsets
//
// Of QueryBlock, row r is one head's query first_query + r. Of PackedBlock it is a packed row: see
// work_list.hpp.
#pragma once

#include "kernels/hip/tile/tile.hpp"

namespace kernels::hip {

struct QueryBlock {
  int32_t batch, head_, first_query;
  int32_t rows;  // how many of the tile's kRows exist

  GPU_DEVICE int32_t query(int r) const { return first_query + r; }
  GPU_DEVICE int32_t head(int) const { return head_; }
  using Where = Offsets;
  GPU_DEVICE Offsets offsets(const Strides& stride) const {
    return {batch * stride.batch + head_ * stride.head + first_query * stride.row, stride.row};
  }
};

struct PackedBlock {
  int32_t batch, first_head, first_row;  // first_head: of the group
  int32_t rows;                          // how many of the tile's exist
  int32_t q_first;                       // the sequence's first row of q and out
  int32_t group;

  GPU_DEVICE int32_t query(int r) const { return (first_row + r) / group; }
  GPU_DEVICE int32_t head(int r) const { return first_head + (first_row + r) % group; }

  struct Where {
    int64_t first, row, head;
    int32_t first_row, group;
    GPU_DEVICE int64_t operator()(int r) const {
      const int32_t packed = first_row + r, query = packed / group;
      return first + query * row + (packed - query * group) * head;
    }
  };
  GPU_DEVICE Where offsets(const Strides& stride) const {
    return {batch * stride.batch + q_first * stride.row + first_head * stride.head, stride.row,
            stride.head, first_row, group};
  }
};

// Strides of the mask's rows, and of lse.
GPU_DEVICE Strides mask_strides(const AttentionParams& p) {
  return {p.mask_batch, p.mask_row, p.mask_head};
}
GPU_DEVICE Strides lse_strides(const AttentionParams& p) {
  return {p.lse_batch, p.lse_row, p.lse_head};
}

}  // namespace kernels::hip
