// kernels/hip/tile/copy.hpp: copies one step's rows of K or V to workgroup memory by way of
// registers (StepCopy)
//
// issue() starts the loads and commit() stores what they brought; the kernel computes between the
// two. Rows past the last key and columns past head_dim become zero whatever bytes are there, and
// are not read.
//
//   RowCopy           [kKeys][kDim]   K, and V of the valu tile
//   TransposingCopy   [kDim][kKeys]   V of the transposed tile: A takes a column's keys
//                                     side by side
//
// Each thread loads 16 bytes at a time. The base address is the same for the whole wave and the
// offset is 32 bits wide (see load128), which spares AMD a pair of registers for each load.
#pragma once

#include "kernels/hip/dtype.hpp"

namespace kernels::hip {

// Key `row` is in row `row` of workgroup memory.
struct InOrder {
  GPU_DEVICE static int of(int row) { return row; }
};

// kRowBytes: between rows in workgroup memory. Order::of(key): the row that the key is copied to.
template <class T, int kThreads, int kKeys, int kDim, uint32_t kRowBytes, class Order = InOrder>
struct RowCopy {
  static constexpr int kWide = 16 / T::kBytes;  // elements in 16 bytes
  static constexpr int kChunks = kDim / kWide;
  static constexpr int kPassRows = kThreads / kChunks;
  static constexpr int kPasses = kKeys / kPassRows;
  static_assert(kThreads % kChunks == 0 && kKeys % kPassRows == 0);

  gpu::Bits128 bits[kPasses];

  GPU_DEVICE void issue(uint32_t, const typename T::Storage* at, int64_t stride, int keys,
                        int head_dim) {
    const int r = static_cast<int>(gpu::thread()) / kChunks,
              d = static_cast<int>(gpu::thread()) % kChunks * kWide;
    const uint32_t offset = (r * static_cast<uint32_t>(stride) + d) * T::kBytes;
    if (keys >= kKeys && head_dim == kDim) {
      const uint32_t here = gpu::recomputed(offset);
      GPU_UNROLL for (int i = 0; i < kPasses; ++i) bits[i] =
          gpu::load128(at + i * kPassRows * stride, here);
      return;
    }
    GPU_UNROLL for (int i = 0; i < kPasses; ++i) {
      bits[i] = {};
      if (r < gpu::scalar(keys - i * kPassRows) && d < head_dim)
        bits[i] = gpu::load128(at + i * kPassRows * stride, gpu::recomputed(offset));
    }
  }

  template <class Rows>
  GPU_DEVICE void issue_rows(uint32_t, const Rows& rows, int first, int end, int head_dim) {
    const int r = static_cast<int>(gpu::thread()) / kChunks,
              d = static_cast<int>(gpu::thread()) % kChunks * kWide;
    GPU_UNROLL for (int i = 0; i < kPasses; ++i) {
      const int row = r + i * kPassRows;
      bits[i] = {};
      if (row >= first && row < end && d < head_dim) bits[i] = gpu::load128(rows(row) + d);
    }
  }

  GPU_DEVICE void leave_undefined() {
    GPU_UNROLL for (int i = 0; i < kPasses; ++i) gpu::leave_undefined(bits[i]);
  }

  GPU_DEVICE void commit(uint32_t to) const {
    const int r = static_cast<int>(gpu::thread()) / kChunks,
              c = static_cast<int>(gpu::thread()) % kChunks;
    GPU_UNROLL for (int i = 0; i < kPasses; ++i) {
      gpu::shared_store(to + Order::of(r + i * kPassRows) * kRowBytes + c * 16, bits[i]);
    }
  }
};

// Copies 16-bit elements. kRowBytes: between columns of V in workgroup memory. A thread takes
// blocks of kBlock keys by 8 columns and stores kBlock keys of a column at once. Neighbouring lanes
// take neighbouring keys, so that their stores spread over the banks.
template <class T, int kThreads, int kKeys, int kDim, uint32_t kRowBytes>
struct TransposingCopy {
  static constexpr int kChunks = kDim / 8;
  static constexpr int kBlock = kKeys * kChunks / kThreads >= 4 ? 4 : 2;
  static constexpr int kBlocks = kKeys / kBlock * kChunks;
  static constexpr int kPasses = (kBlocks + kThreads - 1) / kThreads;
  static constexpr int kKeyBlocks = kKeys / kBlock;
  static_assert(T::kBytes == 2 && kBlocks % kThreads == 0);

  gpu::Bits128 bits[kPasses][kBlock];

  GPU_DEVICE void issue(uint32_t, const typename T::Storage* at, int64_t stride, int keys,
                        int head_dim) {
    GPU_UNROLL for (int i = 0; i < kPasses; ++i) {
      const int index = static_cast<int>(gpu::thread()) + i * kThreads;
      const int key = index % kKeyBlocks * kBlock, d = index / kKeyBlocks * 8;
      const uint32_t offset = (key * static_cast<uint32_t>(stride) + d) * T::kBytes;
      if (keys >= kKeys && head_dim == kDim) {
        const uint32_t here = gpu::recomputed(offset);
        GPU_UNROLL for (int j = 0; j < kBlock; ++j) bits[i][j] =
            gpu::load128(at + j * stride, here);
      } else {
        GPU_UNROLL for (int j = 0; j < kBlock; ++j) {
          bits[i][j] = {};
          if (key < gpu::scalar(keys - j) && d < head_dim) {
            bits[i][j] = gpu::load128(at + j * stride, gpu::recomputed(offset));
          }
        }
      }
    }
  }

  template <class Rows>
  GPU_DEVICE void issue_rows(uint32_t, const Rows& rows, int first, int end, int head_dim) {
    GPU_UNROLL for (int i = 0; i < kPasses; ++i) {
      const int index = static_cast<int>(gpu::thread()) + i * kThreads;
      const int key = index % kKeyBlocks * kBlock, d = index / kKeyBlocks * 8;
      GPU_UNROLL for (int j = 0; j < kBlock; ++j) {
        bits[i][j] = {};
        if (key + j >= first && key + j < end && d < head_dim)
          bits[i][j] = gpu::load128(rows(key + j) + d);
      }
    }
  }

  GPU_DEVICE void commit(uint32_t to) const {
    GPU_UNROLL for (int i = 0; i < kPasses; ++i) store_block(to, i, bits[i]);
  }

  // Stores a block of pass number `pass`.
  GPU_DEVICE static void store_block(uint32_t to, int pass, const gpu::Bits128 (&rows)[kBlock]) {
    const int index = static_cast<int>(gpu::thread()) + pass * kThreads;
    const int key = index % kKeyBlocks * kBlock, d = index / kKeyBlocks * 8;
    const uint32_t base = to + d * kRowBytes + key * 2;
    GPU_UNROLL for (int j = 0; j < 8; ++j) {
      uint32_t word[kBlock / 2];
      GPU_UNROLL for (int n = 0; n < kBlock / 2; ++n) word[n] =
          pair(rows[2 * n], rows[2 * n + 1], j);
      if constexpr (kBlock == 4) {
        gpu::shared_store(base + j * kRowBytes, gpu::Bits64{{word[0], word[1]}});
      } else {
        gpu::shared_store(base + j * kRowBytes, word[0]);
      }
    }
  }

  // Joins element j of two rows into a word, the first row's in the low half.
  GPU_DEVICE static uint32_t pair(const gpu::Bits128& first, const gpu::Bits128& second, int j) {
    const uint32_t a = first.word[j / 2], b = second.word[j / 2];
#if defined(GPU_AMD)
    return __builtin_amdgcn_perm(b, a, j % 2 == 0 ? 0x05040100 : 0x07060302);
#else
    return j % 2 == 0 ? (a & 0xFFFFu) | b << 16 : a >> 16 | (b & 0xFFFF0000u);
#endif
  }
};

}  // namespace kernels::hip
