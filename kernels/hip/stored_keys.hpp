// kernels/hip/stored_keys.hpp: K and V of 8 bits, and their scales
//
//   k = k_scale * stored k        score = k_scale * (q . stored k)
//   v = v_scale * stored v        O     = sum of w * v_scale * stored v
//
// A head's scales (or a tensor's) are one number for all keys of an item: it multiplies the scores,
// and O at the end. With a scale for each key (per_token) the second product takes
//
//   x = w * v_scale / r
//
// in place of the weight w, and O is multiplied by r at the end. r, a power of two, is kept for each
// row. It is about the largest v_scale of a key that the row sees, so that x fits f16 whatever the
// scales are. If r rises, O is multiplied by old r / new r. The sum of the softmax is of w.
#pragma once

#include "kernels/hip/online_softmax.hpp"
#include "kernels/hip/work_list.hpp"

namespace kernels::hip {

// How far a scale may exceed r before r rises. With w up to 2^8, x stays below 2^14.
inline constexpr float kScaleThreshold = 32;

template <ScoreLayout Tile>
class ValueScales {
 public:
  GPU_DEVICE ValueScales() {
    GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) r_[slot] = 0;
  }

  // Computes x of each weight. scale_of(t, e): v_scale of that key; any number if no row sees it.
  // Every lane of the wave calls it.
  template <class ScaleOf>
  GPU_DEVICE void weigh(const Tile& tile, const typename Tile::Scores& weights,
                        const ScaleOf& scale_of, typename Tile::Output& o,
                        typename Tile::Scores& x) {
    float largest[Tile::kSlots];
    bool exceeds = false;
    GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
      float part = 0;
      each_key([&](int t, int e) {
        const float scale = gpu::absolute(scale_of(t, e));
        part = gpu::max(part, Tile::at(weights, slot, t, e) > 0 ? scale : 0);
      });
      largest[slot] = tile.max_of_row(part);
      exceeds |= largest[slot] > kScaleThreshold * r_[slot];
    }
    if (gpu::any<Tile::kWave>(exceeds)) {
      GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
        if (largest[slot] > r_[slot]) {
          const float raised = power_of_two(largest[slot]);
          Tile::scale(o, slot, r_[slot] * inverse(raised));
          r_[slot] = raised;
        }
      }
    }
    GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
      const float by = inverse(r_[slot]);
      each_key([&](int t, int e) {
        const float w = Tile::at(weights, slot, t, e) * (scale_of(t, e) * by);
        // A tile that truncates gets what it need not truncate.
        Tile::set(x, slot, t, e,
                  Tile::kSumIsOfRounded ? rounded(typename Tile::Element{}, w) : w);
      });
    }
  }

  GPU_DEVICE float factor(int slot) const { return r_[slot]; }

 private:
  template <class F>
  GPU_DEVICE static void each_key(const F& f) {
    GPU_UNROLL for (int t = 0; t < Tile::kScoreTiles; ++t) {
      GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) f(t, e);
    }
  }
  // The largest power of two up to x, but from 2^-126 to 2^126, so that it has an inverse.
  GPU_DEVICE static float power_of_two(float x) {
    constexpr uint32_t kLeast = 1u << 23, kMost = 253u << 23;
    const uint32_t bits = __builtin_bit_cast(uint32_t, x) & 0x7F800000u;
    return __builtin_bit_cast(float, bits < kLeast ? kLeast : bits > kMost ? kMost : bits);
  }
  // Of 0, a finite number.
  GPU_DEVICE static float inverse(float power) {
    return __builtin_bit_cast(float, (254u << 23) - __builtin_bit_cast(uint32_t, power));
  }

  float r_[Tile::kSlots];  // 0 until a row has seen a scale
};

// The scale of all keys of a head; 1 if there are none.
GPU_DEVICE float scale_of_head(const float* scale, const Strides& stride, int32_t head) {
  return scale == nullptr ? 1 : gpu::global(scale)[head * stride.head];
}

// A tile whose K and V are of 8 bits in memory. Each step's scales lie behind the tile's own
// workgroup memory.
template <class Base>
struct StoredTile : Base {
  using Stored = Bytes;
  static constexpr uint32_t kKeyScalesAt = (Base::kSharedBytes + 15) / 16 * 16,
                            kValueScalesAt = kKeyScalesAt + Base::kKeys * 4,
                            kSharedBytes = kValueScalesAt + Base::kKeys * 4;
  static_assert(Base::kThreads >= Base::kKeys);

  // Brings the scale of one key with each of the first kKeys threads.
  template <class Copy, uint32_t kAt>
  struct WithScales : Copy {
    float scale;
    bool has_scale;

    GPU_DEVICE void commit(uint32_t to) const {
      Copy::commit(to);
      if (has_scale) gpu::shared_store(kAt + gpu::thread() * 4, scale);
    }
  };
  using KeyCopy = WithScales<typename Base::WideningKeyCopy, kKeyScalesAt>;
  using ValueCopy = WithScales<typename Base::WideningValueCopy, kValueScalesAt>;
};

// K and V of one item, as ListedKeys.
template <class Tile>
struct StoredKeys {
  static constexpr bool kStored = true;
  const AttentionParams& p;
  const StoredParams& stored;
  KeyRows rows;
  int32_t begin, end;
  float k_scale, v_scale;  // of all keys, unless per_token

  GPU_DEVICE StoredKeys(const AttentionParams& p_in, const StoredParams& stored_in,
                        const KeyRows& rows_in, int32_t begin_in, int32_t end_in)
      : p(p_in), stored(stored_in), rows(rows_in), begin(begin_in), end(end_in), k_scale(1),
        v_scale(1) {
    if (stored.per_token) return;
    k_scale = scale_of_head(stored.k_scale, stored.k_scale_stride, rows.head);
    v_scale = scale_of_head(stored.v_scale, stored.v_scale_stride, rows.head);
  }

  struct Where {
    const KeyRows& rows;
    const Strides& stride;
    int32_t key;  // the step's first
    GPU_DEVICE int64_t operator()(int r) const { return rows.offset(stride, rows.place(key + r)); }
  };
  template <class Copy>
  GPU_DEVICE void issue(Copy& copy, uint32_t to, const void* tensor, const Strides& stride,
                        const float* scale, const Strides& scale_stride, int32_t key,
                        int32_t head_dim) const {
    copy.stored = stored.dtype;
    const RowsOf<uint8_t, Where> from{static_cast<const uint8_t*>(tensor), {rows, stride, key}};
    copy.issue_rows(to, from, begin - key, end - key, head_dim);
    const int32_t r = static_cast<int32_t>(gpu::thread()), own = key + r;
    copy.has_scale = stored.per_token && r < Tile::kKeys;
    copy.scale = 0;
    if (copy.has_scale && own >= begin && own < end)
      copy.scale = gpu::global(scale)[rows.offset(scale_stride, rows.place(own))];
  }
  GPU_DEVICE void issue_keys(typename Tile::KeyCopy& copy, int32_t key) const {
    issue(copy, Tile::kKeyAt, p.k, p.k_stride, stored.k_scale, stored.k_scale_stride, key,
          p.head_dim);
  }
  GPU_DEVICE void issue_values(typename Tile::ValueCopy& copy, int32_t key) const {
    issue(copy, Tile::kValueAt, p.v, p.v_stride, stored.v_scale, stored.v_scale_stride, key,
          p.head_dim_v);
  }

  GPU_DEVICE void scale_scores(const Tile& tile, typename Tile::Scores& s) const {
    if (stored.per_token) {
      each_slot([&](int slot, int t, int e) {
        const float scale = scale_at(Tile::kKeyScalesAt, tile, t, e);
        Tile::set(s, slot, t, e, Tile::at(s, slot, t, e) * scale);
      });
    } else if (stored.k_scale != nullptr) {
      each_slot([&](int slot, int t, int e) {
        Tile::set(s, slot, t, e, Tile::at(s, slot, t, e) * k_scale);
      });
    }
  }
  // Adds weights to the sums, and packs what the second product takes.
  GPU_DEVICE void pack(const Tile& tile, const typename Tile::Scores& weights,
                       OnlineSoftmax<Tile>& softmax, ValueScales<Tile>& value_scales,
                       typename Tile::Output& o, typename Tile::Weights& packed) const {
    if (stored.per_token) {
      typename Tile::Scores x;
      value_scales.weigh(
          tile, weights,
          [&](int t, int e) { return scale_at(Tile::kValueScalesAt, tile, t, e); }, o, x);
      softmax.pack_products(weights, x, packed);
    } else {
      softmax.pack(weights, true, packed);
    }
  }
  GPU_DEVICE void scale_output(const ValueScales<Tile>& value_scales,
                               typename Tile::Output& o) const {
    if (stored.v_scale == nullptr) return;
    GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
      Tile::scale(o, slot, stored.per_token ? value_scales.factor(slot) : v_scale);
    }
  }

 private:
  template <class F>
  GPU_DEVICE static void each_slot(const F& f) {
    GPU_UNROLL for (int t = 0; t < Tile::kScoreTiles; ++t) {
      GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) {
        GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) f(slot, t, e);
      }
    }
  }
  GPU_DEVICE static float scale_at(uint32_t at, const Tile& tile, int t, int e) {
    return gpu::shared_load<float>(
        at + static_cast<uint32_t>(tile.first_key() + Tile::key_offset(t, e)) * 4);
  }
};

}  // namespace kernels::hip
