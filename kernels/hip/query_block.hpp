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

// Divides by group, by one multiplication. magic: 2^31 / group, rounded up: less than group / 2^31
// too large, so that the error of packed * magic / 2^31 is below 2^16 * 2^15 / 2^31.
// REQUIRES: packed is below 2^16, and group at most 2^15.
GPU_DEVICE int32_t divide_by_group(int32_t packed, uint32_t magic) {
  return static_cast<int32_t>(static_cast<uint64_t>(static_cast<uint32_t>(packed)) * magic >> 31);
}

struct PackedBlock {
  int32_t batch, first_head;  // first_head: of the group
  int32_t first_query, lead;  // row 0 is query first_query of head first_head + lead
  int32_t rows;               // how many of the tile's exist
  int32_t q_first;            // the sequence's first row of q and out
  int32_t group;
  uint32_t magic;

  GPU_DEVICE int32_t query(int r) const { return first_query + divide_by_group(lead + r, magic); }
  GPU_DEVICE int32_t head(int r) const {
    return first_head + lead + r - divide_by_group(lead + r, magic) * group;
  }

  struct Where {
    int64_t first, row, head;
    int32_t lead, group;
    uint32_t magic;
    GPU_DEVICE int64_t operator()(int r) const {
      const int32_t query = divide_by_group(lead + r, magic);
      return first + query * row + (lead + r - query * group) * head;
    }
  };
  GPU_DEVICE Where offsets(const Strides& stride) const {
    return {batch * stride.batch + (q_first + first_query) * stride.row + first_head * stride.head,
            stride.row,
            stride.head,
            lead,
            group,
            magic};
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
