// kernels/hip/tile/widening_copy.hpp: copies one step's rows of 8-bit K or V to workgroup memory as
// f16 or bf16 (StepCopy)
//
// As in copy.hpp, issue() loads to registers, and commit() stores. Here it widens the numbers
// first, so that the products are those of a tile without 8-bit numbers. A load is of 8 columns.
#pragma once

#include "kernels/hip/tile/tile.hpp"
#include "kernels/hip/widen.hpp"

namespace kernels::hip {

// Place::at(row, chunk): where 8 columns of a row are in workgroup memory.
template <class T, int kThreads, int kKeys, int kDim, class Place>
struct WideningRowCopy {
  static constexpr int kChunks = kDim / 8;
  static constexpr int kPassRows = kThreads / kChunks;
  static constexpr int kPasses = kKeys / kPassRows;
  static_assert(T::kBytes == 2 && kThreads % kChunks == 0 && kKeys % kPassRows == 0);

  gpu::Bits64 bits[kPasses];
  DType stored;  // set by the caller before commit

  template <class Rows>
  GPU_DEVICE void issue_rows(uint32_t, const Rows& rows, int first, int end, int head_dim) {
    const int r = static_cast<int>(gpu::thread()) / kChunks,
              d = static_cast<int>(gpu::thread()) % kChunks * 8;
    GPU_UNROLL for (int i = 0; i < kPasses; ++i) {
      const int row = r + i * kPassRows;
      bits[i] = {};
      if (row >= first && row < end && d < head_dim) bits[i] = gpu::load64(rows(row) + d);
    }
  }
  GPU_DEVICE void issue(uint32_t to, const uint8_t* at, int64_t stride, int keys, int head_dim) {
    issue_rows(to, RowsOf<uint8_t>{at, {0, stride}}, 0, keys, head_dim);
  }
  GPU_DEVICE void leave_undefined() {
    GPU_UNROLL for (int i = 0; i < kPasses; ++i) gpu::leave_undefined(bits[i]);
  }
  GPU_DEVICE void commit(uint32_t to) const {
    const int r = static_cast<int>(gpu::thread()) / kChunks,
              c = static_cast<int>(gpu::thread()) % kChunks;
    with_stored(stored, [&](auto as) {
      GPU_UNROLL for (int i = 0; i < kPasses; ++i) {
        gpu::schedule_fence();  // else AMD's compiler widens all at once, and spills
        gpu::shared_store(to + Place::at(r + i * kPassRows, c),
                          widen8<T, decltype(as)::kStored>(bits[i]));
      }
    });
  }
};

// As TransposingCopy.
template <class T, int kThreads, int kKeys, int kDim, uint32_t kRowBytes>
struct WideningTransposingCopy {
  using Wide = TransposingCopy<T, kThreads, kKeys, kDim, kRowBytes>;
  static constexpr int kBlock = Wide::kBlock, kPasses = Wide::kPasses,
                       kKeyBlocks = Wide::kKeyBlocks;

  gpu::Bits64 bits[kPasses][kBlock];
  DType stored;  // set by the caller before commit

  template <class Rows>
  GPU_DEVICE void issue_rows(uint32_t, const Rows& rows, int first, int end, int head_dim) {
    GPU_UNROLL for (int i = 0; i < kPasses; ++i) {
      const int index = static_cast<int>(gpu::thread()) + i * kThreads;
      const int key = index % kKeyBlocks * kBlock, d = index / kKeyBlocks * 8;
      GPU_UNROLL for (int j = 0; j < kBlock; ++j) {
        bits[i][j] = {};
        if (key + j >= first && key + j < end && d < head_dim)
          bits[i][j] = gpu::load64(rows(key + j) + d);
      }
    }
  }
  GPU_DEVICE void issue(uint32_t to, const uint8_t* at, int64_t stride, int keys, int head_dim) {
    issue_rows(to, RowsOf<uint8_t>{at, {0, stride}}, 0, keys, head_dim);
  }
  GPU_DEVICE void leave_undefined() {
    GPU_UNROLL for (int i = 0; i < kPasses; ++i) {
      GPU_UNROLL for (int j = 0; j < kBlock; ++j) gpu::leave_undefined(bits[i][j]);
    }
  }
  GPU_DEVICE void commit(uint32_t to) const {
    with_stored(stored, [&](auto as) {
      GPU_UNROLL for (int i = 0; i < kPasses; ++i) {
        gpu::schedule_fence();
        gpu::Bits128 wide[kBlock];
        GPU_UNROLL for (int j = 0; j < kBlock; ++j) wide[j] =
            widen8<T, decltype(as)::kStored>(bits[i][j]);
        Wide::store_block(to, i, wide);
      }
    });
  }
};

}  // namespace kernels::hip
