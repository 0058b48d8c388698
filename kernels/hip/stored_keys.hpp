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
// in place of the weight w, and O is multiplied by r at the end. r, a power of two, is kept for
// each row: about the largest w * v_scale so far, with w relative to the softmax reference as it is
// now. So x fits f16 and has its precision, whatever the scales are. Where the reference or r
// rises, O is multiplied once, by both factors. The sum of the softmax is of w.
#pragma once

#include "kernels/hip/online_softmax.hpp"
#include "kernels/hip/work_list.hpp"

namespace kernels::hip {

// How far w * v_scale may exceed r before r rises.
inline constexpr float kScaleThreshold = 32;

// r of each of a lane's rows.
template <ScoreLayout Tile>
class ValueScales {
 public:
  GPU_DEVICE ValueScales() {
    GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) r_[slot] = 0;
  }

  // largest: the largest w * v_scale of a row in this step.
  GPU_DEVICE bool exceeds(int slot, float largest) const {
    return largest > kScaleThreshold * r_[slot];
  }
  // Sets a new r. factor: that of weights, as the reference rose. RETURNS the factor of O.
  GPU_DEVICE float raise(int slot, float factor, float largest) {
    const float r = r_[slot] * factor;
    r_[slot] = power_of_two(largest > kScaleThreshold * r ? largest : r);
    return r * inverse(slot);
  }
  GPU_DEVICE float r(int slot) const { return r_[slot]; }
  // 1 / r; any number before the first raise.
  GPU_DEVICE float inverse(int slot) const {
    return __builtin_bit_cast(float, (254u << 23) - bits_of(r_[slot]));
  }

 private:
  GPU_DEVICE static uint32_t bits_of(float x) { return __builtin_bit_cast(uint32_t, x); }
  // The largest power of two up to x, but from 2^-126 to 2^126, so that it has an inverse.
  GPU_DEVICE static float power_of_two(float x) {
    constexpr uint32_t kLeast = 1u << 23, kMost = 253u << 23;
    const uint32_t bits = bits_of(x) & 0x7F800000u;
    return __builtin_bit_cast(float, bits<kLeast ? kLeast : bits> kMost ? kMost : bits);
  }

  float r_[Tile::kSlots];  // 0 until a row has seen a weight
};

// The step of online softmax: turns scores into weights, adds them to the sums, scales O where the
// reference or r rises, and packs what the second product takes. scale_of(t, e): v_scale of that
// key; any number if no row sees it. Every lane of the wave calls it.
template <class Tile, class ScaleOf>
GPU_DEVICE void weigh_stored(const Tile& tile, float exp_scale, bool per_token,
                             const ScaleOf& scale_of, typename Tile::Scores& s,
                             OnlineSoftmax<Tile>& softmax, ValueScales<Tile>& values,
                             typename Tile::Output& o, typename Tile::Weights& packed) {
  const auto each = [](int slot, const auto& f, typename Tile::Scores& scores) {
    GPU_UNROLL for (int t = 0; t < Tile::kScoreTiles; ++t) {
      GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) {
        Tile::set(scores, slot, t, e, f(Tile::at(scores, slot, t, e), t, e));
      }
    }
  };
  float factor[Tile::kSlots], largest[Tile::kSlots], sums[Tile::kSlots] = {};
  GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) factor[slot] = 1;
  bool rescales = softmax.exceeds_threshold(tile, exp_scale, s, largest);
  if (rescales) {
    GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
      factor[slot] = softmax.raise_reference(slot, exp_scale, largest[slot]);
    }
  }
  softmax.weigh(exp_scale, s);
  if (per_token) {
    bool exceeds = false;
    GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
      sums[slot] = softmax.sum_with(s, slot);
      float part = 0;
      each(
          slot,
          [&](float w, int t, int e) {
            const float x = w * scale_of(t, e);
            part = gpu::max(part, gpu::absolute(x));
            return x;
          },
          s);
      largest[slot] = tile.max_of_row(part);
      exceeds |= values.exceeds(slot, largest[slot]);
    }
    rescales = gpu::any<Tile::kWave>(exceeds) || rescales;
    if (rescales) {
      GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
        factor[slot] = values.raise(slot, factor[slot], largest[slot]);
      }
    }
  }
  if (rescales) {
    GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) Tile::scale(o, slot, factor[slot]);
  }
  if (per_token) {
    GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
      const float inverse = values.inverse(slot);
      each(
          slot,
          [&](float x, int, int) {
            // Rounds first where pack() truncates, so that truncating changes nothing.
            return Tile::kSumIsOfRounded ? rounded(typename Tile::Element{}, x * inverse)
                                         : x * inverse;
          },
          s);
    }
  }
  softmax.pack(s, !per_token, packed);
  if (per_token) {
    GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) softmax.set_sum(slot, sums[slot]);
  }
}

// The scale of all keys of a head; 1 if there are none.
GPU_DEVICE float scale_of_head(const float* scale, const Strides& stride, int32_t head) {
  return scale == nullptr ? 1 : gpu::global(scale)[head * stride.head];
}

// A tile whose K and V are of 8 bits in memory. Each step's scales lie behind the tile's own
// workgroup memory.
template <class Base>
struct StoredTile : Base {
  using Stored = Bytes;
  static constexpr int kResident = Base::kResident <= 2 ? Base::kResident : 1;  // else it spills
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
      : p(p_in),
        stored(stored_in),
        rows(rows_in),
        begin(begin_in),
        end(end_in),
        k_scale(1),
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
  GPU_DEVICE void weigh(const Tile& tile, typename Tile::Scores& s, OnlineSoftmax<Tile>& softmax,
                        ValueScales<Tile>& values, typename Tile::Output& o,
                        typename Tile::Weights& packed) const {
    weigh_stored(
        tile, p.exp_scale, stored.per_token,
        [&](int t, int e) { return scale_at(Tile::kValueScalesAt, tile, t, e); }, s, softmax,
        values, o, packed);
  }
  GPU_DEVICE void scale_output(const ValueScales<Tile>& values, typename Tile::Output& o) const {
    if (stored.v_scale == nullptr) return;
    GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
      Tile::scale(o, slot, stored.per_token ? values.r(slot) : v_scale);
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
    const auto lane_at = static_cast<uint32_t>(tile.first_key()) * 4;
    return gpu::shared_load<float>(at + gpu::recomputed(lane_at) +
                                   static_cast<uint32_t>(Tile::key_offset(t, e)) * 4);
  }
};

}  // namespace kernels::hip
