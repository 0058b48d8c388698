// kernels/hip/mask_states.hpp: which tiles of a mask hide everything, nothing or something
//
// A tile is a block of kRows queries x a step of kKeys keys. A kernel before the main one reads the
// mask once, one workgroup for each tile, and writes a byte for each:
//
//   hidden   boolean: all 0; additive: all -inf. The main kernel leaves the step out.
//   clear    boolean: none is 0; additive: all 0. The main kernel does not apply the mask.
//   mixed    all else, NaN too
//   clear rows   boolean: none is 0, but some queries do not exist. The main kernel applies the
//                mask.
//
// Queries and keys that do not exist do not count. But a boolean mask's tile is not clear unless
// all its queries exist: copies bring 0 for the others, so that all their keys are hidden. If they
// were not, references would rise at other steps, and bits would depend on whether tiles are known.
#pragma once

#include "kernels/hip/dtype.hpp"
#include "kernels/hip/params.hpp"

namespace kernels::hip {

enum TileState : uint8_t { kTileHidden, kTileClear, kTileMixed, kTileClearRows };
// Whether the mask hides nothing that exists in any of eight tiles: the lowest bit of each state.
inline constexpr uint64_t kNothingHidden = 0x0101010101010101;
static_assert(kTileClear % 2 == 1 && kTileClearRows % 2 == 1 &&
              kTileHidden % 2 + kTileMixed % 2 == 0);

// The states of a mask's tiles. Those of a block's steps stand side by side, from a multiple of
// kStatesAlignment bytes on.
inline constexpr int32_t kStatesAlignment = 8;
struct MaskStates {
  uint8_t* first;              // null: there are none, and every tile counts as mixed
  int64_t batch, head, block;  // bytes from one to the next; 0 where all share one
};

// Whether all of the eight tiles are hidden. REQUIRES: states is a multiple of kStatesAlignment.
GPU_DEVICE bool all_hidden(const uint8_t* states) {
  static_assert(kTileHidden == 0);
  return *reinterpret_cast<const uint64_t*>(states) == 0;
}
// Returns the last step of [begin, end) that is not hidden, or a number below begin.
GPU_DEVICE int32_t last_unhidden(const uint8_t* states, int32_t begin, int32_t end) {
  int32_t step = end - 1;
  while (step >= begin && states[step] == kTileHidden)
    step -= step % 8 == 7 && all_hidden(states + step - 7) ? 8 : 1;
  return step;
}
// Returns the first step from `begin` on that is not hidden. REQUIRES: there is one.
GPU_DEVICE int32_t first_unhidden(const uint8_t* states, int32_t begin) {
  int32_t step = begin;
  while (states[step] == kTileHidden) step += step % 8 == 0 && all_hidden(states + step) ? 8 : 1;
  return step;
}

// The argument of the kernel that comes before the main one.
struct PrepareParams {
  uint32_t* taken;  // becomes 0; null: there is no counter
  // ---- The mask. Unused if there are no states ----
  MaskStates states;
  const void* mask;
  int64_t mask_batch, mask_head, mask_row;  // strides in elements
  int32_t seq_q, seq_kv;
  uint32_t heads, blocks, steps;  // that have tiles of their own
  uint32_t tiles;
  int32_t rows;    // queries of a tile
  uint32_t flags;  // kBooleanMask and kMaskF32
};

inline constexpr uint32_t kPrepareThreads = 256, kPrepareSharedBytes = kPrepareThreads / 32 * 4;

// REQUIRES: kMaskVector. One workgroup for each tile, those of a block's steps side by side.
template <class Tile>
class MaskScan {
 public:
  GPU_DEVICE explicit MaskScan(const PrepareParams& params) : p_(params) {}

  GPU_DEVICE void run() const {
    const uint32_t n = gpu::block_x(), step = n % p_.steps, block = n / p_.steps % p_.blocks,
                   index = n / p_.steps / p_.blocks, head = index % p_.heads,
                   batch = index / p_.heads;
    const int32_t first_row = static_cast<int32_t>(block) * p_.rows,
                  first_key = static_cast<int32_t>(step) * Tile::kKeys;
    const int64_t first =
        batch * p_.mask_batch + head * p_.mask_head + first_row * p_.mask_row + first_key;
    const int32_t rows = p_.mask_row == 0 ? 1 : least(p_.rows, p_.seq_q - first_row),
                  keys = least(Tile::kKeys, p_.seq_kv - first_key);
    const uint32_t found = p_.flags & kBooleanMask ? find<Boolean>(first, rows, keys)
                           : p_.flags & kMaskF32   ? find<F32>(first, rows, keys)
                                                 : find<typename Tile::Element>(first, rows, keys);
    const bool may_be_clear = rows == p_.rows || p_.mask_row == 0 || (p_.flags & kBooleanMask) == 0;
    store(p_.states.first + batch * p_.states.batch + head * p_.states.head +
              block * p_.states.block + step,
          may_be_clear, found);
  }

 private:
  // What is among a tile's elements.
  enum Found : uint32_t { kVisible = 1, kHidden = 2, kBias = 4 };
  struct Boolean {
    using Storage = uint8_t;
    static constexpr int kBytes = 1;
  };

  GPU_DEVICE static int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }

  GPU_DEVICE static uint32_t look_at(float bias) {
    return bias == 0 ? kVisible : bias == -gpu::kInfinity ? kHidden : kBias;
  }
  GPU_DEVICE static uint32_t look_at(Boolean, uint8_t key) { return key != 0 ? kVisible : kHidden; }
  template <class M>
  GPU_DEVICE static uint32_t look_at(M, typename M::Storage bias) {
    return look_at(to_float(M{}, bias));
  }
  // As look_at(), of all elements of four bytes.
  GPU_DEVICE static uint32_t look_at_word(Boolean, uint32_t word) {
    const uint32_t zeros = (word - 0x01010101u) & ~word & 0x80808080u;  // not 0 if a byte is 0
    return (word != 0 ? kVisible : 0u) | (zeros != 0 ? kHidden : 0u);
  }
  GPU_DEVICE static uint32_t look_at_word(F32, uint32_t word) {
    return look_at(__builtin_bit_cast(float, word));
  }
  template <class M>
  GPU_DEVICE static uint32_t look_at_word(M, uint32_t word) {
    return look_at(low_half<M>(word)) | look_at(high_half<M>(word));
  }

  // Returns what the calling thread found in its part of the tile.
  template <class M>
  GPU_DEVICE uint32_t find(int64_t first, int32_t rows, int32_t keys) const {
    constexpr int32_t kWide = 16 / M::kBytes, kWords = Tile::kKeys / kWide;  // of a row
    const auto* mask = static_cast<const typename M::Storage*>(p_.mask) + first;
    uint32_t found = 0;
    GPU_UNROLL_BY(4)
    for (int32_t n = static_cast<int32_t>(gpu::thread()); n < rows * kWords; n += kPrepareThreads) {
      const int32_t row = n / kWords, key = n % kWords * kWide;
      const auto* from = mask + row * p_.mask_row + key;
      if (key + kWide <= keys) {
        const gpu::Bits128 bits = gpu::load128(from);
        GPU_UNROLL for (int i = 0; i < 4; ++i) found |= look_at_word(M{}, bits.word[i]);
      } else {
        for (int32_t i = 0; key + i < keys; ++i) found |= look_at(M{}, from[i]);
      }
    }
    return found;
  }

  // Joins what the threads found, and stores the tile's state.
  GPU_DEVICE static void store(uint8_t* state, bool may_be_clear, uint32_t found) {
    uint32_t all = 0;
    GPU_UNROLL for (uint32_t bit = kVisible; bit <= kBias; bit *= 2) {
      if (gpu::any<32>((found & bit) != 0)) all |= bit;
    }
    if (gpu::thread() % 32 == 0) gpu::shared_store(gpu::thread() / 32 * 4, all);
    gpu::barrier();
    if (gpu::thread() != 0) return;
    for (uint32_t wave = 1; wave < kPrepareThreads / 32; ++wave)
      all |= gpu::shared_load<uint32_t>(wave * 4);
    *state = all == kVisible  ? may_be_clear ? kTileClear : kTileClearRows
             : all == kHidden ? kTileHidden
                              : kTileMixed;
  }

  const PrepareParams& p_;
};

template <class Tile>
GPU_DEVICE void prepare(const PrepareParams& params) {
  if (params.taken != nullptr && gpu::block_x() == 0 && gpu::thread() == 0) *params.taken = 0;
  if (params.states.first != nullptr) MaskScan<Tile>(params).run();
}

}  // namespace kernels::hip
