// kernels/hip/step_mask.hpp: the mask tensor's part of one step: reads it, and hides scores or adds
// to them
//
// A lane reads its kRun keys of each of its queries' rows. Where every row of the mask starts at a
// multiple of 16 bytes, its keys stand side by side and all keys of the step exist, it reads them
// in 16-byte words; else key by key.
//
//   load()    starts the reads of 16-byte words, if the tile has registers for them (kHoldMask), so
//             that they overlap with the computation of scores
//   apply()   hides scores, or adds to them; reads what load() did not
//
// Many branches here have their shape because AMD's compiler would otherwise keep too much in
// registers; each says so.
#pragma once

#include "kernels/hip/score_modifiers.hpp"

namespace kernels::hip {

// Where(r): the mask's element at row r and key 0.
template <ContiguousKeys Tile, class Where = Offsets>
class StepMask {
 public:
  using Scores = typename Tile::Scores;

  // rows: how many of the workgroup's queries exist.
  GPU_DEVICE void start(const Tile& tile, const Where& where, int32_t rows) {
    where_ = where, rows_ = rows;
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) row_[slot] = row_at(tile.row(slot));
  }

  // key: of the lane's first score; all_exist: whether all keys of the step exist.
  GPU_DEVICE void load(const AttentionParams& p, const Tile& tile, int key, bool all_exist) {
    if constexpr (Tile::kHoldMask) {
      if (!reads_words(p, all_exist) || (p.flags & kMaskF32)) return;
      if (p.flags & kBooleanMask) {
        hold<1>(p, tile, key);
      } else {
        hold<2>(p, tile, key);
      }
    }
  }

  // One if after another and no else: AMD's compiler would keep the scores from before and after
  // every if that has an else.
  GPU_DEVICE void apply(const AttentionParams& p, const Tile& tile, Scores& s, int key,
                        bool all_exist) const {
    const uint32_t type = p.flags & (kBooleanMask | kMaskF32),
                   flags = reads_words(p, all_exist) ? type | kMaskVector : type;
    const auto words_of = [&](uint32_t t) { return gpu::scalar(flags) == (t | kMaskVector); };
    const auto keys_of = [&](uint32_t t) { return gpu::scalar(flags) == t; };
    const auto each_slot = [&](const auto& f) {
      GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) f(slot, row_of(tile, slot));
    };
    if (words_of(kBooleanMask))
      each_slot([&](int slot, int64_t row) { hide_words(p, s, slot, row + key); });
    if (keys_of(kBooleanMask))
      each_slot([&](int slot, int64_t row) { hide_keys(p, s, slot, row, key); });
    if (words_of(kMaskF32))
      each_slot([&](int slot, int64_t row) { add_words<F32>(p, s, slot, row + key); });
    if (keys_of(kMaskF32))
      each_slot([&](int slot, int64_t row) { add_keys<F32>(p, s, slot, row, key); });
    if constexpr (Tile::Element::kBytes == 2) {
      using M = typename Tile::Element;
      if (words_of(0))
        each_slot([&](int slot, int64_t row) { add_words<M>(p, s, slot, row + key); });
      if (keys_of(0)) each_slot([&](int slot, int64_t row) { add_keys<M>(p, s, slot, row, key); });
    }
  }

 private:
  static constexpr int kSlots = Tile::kSlots, kRun = Tile::kRun;

  // Element of the mask at a query's row and key 0. A query that does not exist reads the last
  // one's row. With few registers it is computed again at each use.
  GPU_DEVICE int64_t row_of(const Tile& tile, int slot) const {
    return Tile::kHoldMask ? row_[slot] : row_at(gpu::recomputed(tile.row(slot)));
  }
  GPU_DEVICE int64_t row_at(int32_t r) const { return where_(r < rows_ ? r : rows_ - 1); }

  // The same answer in all lanes: else a wave would execute both ways of reading.
  GPU_DEVICE static bool reads_words(const AttentionParams& p, bool all_exist) {
    return (p.flags & kMaskVector) && all_exist;
  }

  // Reads the lane's part of every row, at kBytes a key.
  template <int kBytes>
  GPU_DEVICE void hold(const AttentionParams& p, const Tile& tile, int key) {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      const char* from = static_cast<const char*>(p.mask) + (row_of(tile, slot) + key) * kBytes;
      GPU_UNROLL for (int i = 0; i * 16 < kRun * kBytes; ++i) held_[slot][i] =
          read_word<kBytes>(from, i);
    }
  }
  // The i-th 16 bytes of a lane's keys in one row of the mask, or all of them if there are fewer.
  template <int kBytes>
  GPU_DEVICE static gpu::Bits128 read_word(const char* from, int i) {
    constexpr int kAll = kRun * kBytes;
    static_assert(kAll % 16 == 0 || kAll == 8 || kAll == 4 || kAll == 2);
    if constexpr (kAll % 16 == 0) {
      return gpu::load128(from + i * 16);
    } else if constexpr (kAll == 2) {
      return {{*reinterpret_cast<const uint16_t*>(from)}};
    } else {
      gpu::Bits128 bits{};
      GPU_UNROLL for (int w = 0; w < kAll / 4; ++w) bits.word[w] =
          reinterpret_cast<const uint32_t*>(from)[w];
      return bits;
    }
  }
  template <int kBytes>
  GPU_DEVICE gpu::Bits128 word_of(int slot, const char* from, int i) const {
    if constexpr (Tile::kHoldMask && kBytes <= 2) {
      return held_[slot][i];
    } else {
      return read_word<kBytes>(from, i);
    }
  }

  // ---- The n-th key of a lane's run ----
  GPU_DEVICE static void hide_unless(Scores& s, int slot, int n, bool visible) {
    if (!visible) Tile::set(s, slot, n / Tile::kElements, n % Tile::kElements, -gpu::kInfinity);
  }
  // A bias of -inf hides the score whatever it is, so that NaN in its key stays unseen.
  GPU_DEVICE static void add(const AttentionParams& p, Scores& s, int slot, int n, float bias) {
    const int t = n / Tile::kElements, e = n % Tile::kElements;
    const float sum = gpu::fma(Tile::at(s, slot, t, e), p.mask_scale, bias);
    Tile::set(s, slot, t, e, bias == -gpu::kInfinity ? -gpu::kInfinity : sum);
  }

  // ---- By 16-byte words. first: the mask's element at the lane's first key ----
  GPU_DEVICE void hide_words(const AttentionParams& p, Scores& s, int slot, int64_t first) const {
    const char* from = static_cast<const char*>(p.mask) + first;
    gpu::Bits128 bits;
    GPU_UNROLL for (int n = 0; n < kRun; ++n) {
      if (n % 16 == 0) bits = word_of<1>(slot, from, n / 16);
      hide_unless(s, slot, n, (bits.word[n % 16 / 4] & (0xFFu << n % 4 * 8)) != 0);
    }
  }
  template <class M>
  GPU_DEVICE void add_words(const AttentionParams& p, Scores& s, int slot, int64_t first) const {
    constexpr int kWide = 16 / M::kBytes;
    const char* from = static_cast<const char*>(p.mask) + first * M::kBytes;
    gpu::Bits128 bits;
    GPU_UNROLL for (int n = 0; n < kRun; ++n) {
      if (n % kWide == 0) bits = word_of<M::kBytes>(slot, from, n / kWide);
      const int i = n % kWide;
      if constexpr (M::kBytes == 4) {
        add(p, s, slot, n, __builtin_bit_cast(float, bits.word[i]));
      } else {
        add(p, s, slot, n,
            i % 2 == 0 ? low_half<M>(bits.word[i / 2]) : high_half<M>(bits.word[i / 2]));
      }
    }
  }

  // ---- Key by key. row: the mask's element at key 0 ----
  // Calls f(n, element) for the lane's keys; element counts from the row. Where registers are
  // short, all lanes take the same path: for a key past the last one, whose score hide_invisible()
  // overwrites, the last one is read.
  template <class F>
  GPU_DEVICE static void each_key(const AttentionParams& p, int key, const F& f) {
    GPU_UNROLL for (int n = 0; n < kRun; ++n) {
      if constexpr (Tile::kHoldMask) {
        if (key + n < p.seq_kv) f(n, (key + n) * p.mask_key);
      } else {
        if (n % kReadsInFlight == 0) gpu::schedule_fence();
        f(n, (key + n < p.seq_kv ? key + n : p.seq_kv - 1) * p.mask_key);
      }
    }
  }
  GPU_DEVICE static void hide_keys(const AttentionParams& p, Scores& s, int slot, int64_t row,
                                   int key) {
    const uint8_t* from = static_cast<const uint8_t*>(p.mask) + row;
    each_key(p, key, [&](int n, int64_t element) { hide_unless(s, slot, n, from[element] != 0); });
  }
  template <class M>
  GPU_DEVICE static void add_keys(const AttentionParams& p, Scores& s, int slot, int64_t row,
                                  int key) {
    const typename M::Storage* from = static_cast<const typename M::Storage*>(p.mask) + row;
    each_key(p, key,
             [&](int n, int64_t element) { add(p, s, slot, n, to_float(M{}, from[element])); });
  }

  // Reads of single keys that may be in flight at once; more would take registers that the scores
  // need.
  static constexpr int kReadsInFlight = 4;
  // 16-byte words that a lane holds of one row, at 2 bytes a key.
  static constexpr int kHeldWords = Tile::kHoldMask ? kRun * 2 / 16 : 1;
  gpu::Bits128 held_[kSlots][kHeldWords];
  int64_t row_[kSlots];  // used only with kHoldMask
  Where where_;
  int32_t rows_;
};

}  // namespace kernels::hip
