// kernels/cpu/simd/mask.inl: which keys a row group sees, and what scale, softcap, mask and ALiBi
// make of its scores
//
//   score = scale k_scale q.k
//   score = softcap tanh(score / softcap)
//   score = score + mask - slope |diagonal - key|
//   score = -inf if the key is not visible
//
// Plain scores (Run::plain_scores) skip all of this but k_scale and the boolean mask: their scale
// goes into the softmax's exponent.
//
//   a tile's keys   0 . . . . . . . . . . . . . . . . tile_keys
//   row r           . . |------ visible ------| . . .    causal, window, length: visibility.hpp
//   row r + 1       . . . |------ visible ------| . .    neither end ever decreases
//   GroupKeys       . . begin ------------- end . . .    their union, of all rows of the group
//
// Most tiles of a mask are uniform. row_mask_effect recognizes those that hide everything (the tile
// is skipped) and those that change nothing (no pass over the scores); it stops as soon as neither
// is possible.
//
// Invariant: a hidden score is replaced by -inf, never added to, so that a NaN in a hidden key
// cannot pass. Decisions are made for whole row groups (block.hpp). Masks are not prefetched: no
// gain was measured.
#if defined(KERNELS_CPU_SIMD_MASK_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_SIMD_MASK_INL
#undef KERNELS_CPU_SIMD_MASK_INL
#else
#define KERNELS_CPU_SIMD_MASK_INL
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "kernels/common/half.hpp"
#include "kernels/common/problem.hpp"
#include "kernels/common/visibility.hpp"
#include "kernels/cpu/block.hpp"
#include "kernels/cpu/simd/convert.inl"
#include "kernels/cpu/simd/vectors.inl"
#include "kernels/cpu/workspace.hpp"

HWY_BEFORE_NAMESPACE();
namespace kernels::cpu::HWY_NAMESPACE {

// What a mask does to a range of scores: changes none, changes some, or hides all.
enum class MaskEffect { none, some, hides_all };

// The scores of the block's rows [row, row + rows) and of keys [first, first + count). Rows of
// `data` are `stride` floats apart. k_scales: of these keys; null: none.
struct Scores {
  int64_t row;
  int64_t rows;
  int64_t first;
  int64_t count;
  float* data;
  int64_t stride;
  const float* k_scales;
};

// Loads one row of the mask for `count` keys as what is added to the scores: -inf if a key is not
// visible.
inline void load_mask(const Tensor& mask, const char* row, int64_t count, float* bias) {
  const int64_t stride = mask.stride[3];
  if (mask.dtype == DType::boolean) {
    for (int64_t j = 0; j < count; ++j) bias[j] = row[j * stride] != 0 ? 0.0f : -INFINITY;
  } else if (stride == 1) {
    load_row(mask.dtype, row, count, bias);
  } else {
    for (int64_t j = 0; j < count; ++j) bias[j] = load_float(mask.dtype, row, j * stride);
  }
}

// Multiplies scores by `scale` and applies the mask to them.
inline void mask_scores(const Block& block, const Scratch& scratch, const Scores& at,
                        Vector scale) {
  const Floats d;
  const Tensor& m = block.run->args->mask;
  const Vector hidden = hn::Set(d, -INFINITY);
  // Copied to locals: the compiler would have to reload members after every store of scores.
  const char* const* masks = scratch.mask_rows + at.row;
  const int64_t skip = at.first * m.stride[3] * element_bytes(m.dtype);
  float* const data = at.data;
  const int64_t stride = at.stride, rows = at.rows, count = at.count;
  const auto each = [=](auto&& masked) HWY_ATTR {
    for (int64_t r = 0; r < rows; ++r) {
      const char* from = masks[r] + skip;
      float* scores = data + r * stride;
      for (int64_t j = 0; j < count; j += kLanes)
        hn::Store(masked(hn::Load(d, scores + j), from, j), d, scores + j);
    }
  };
  const auto add = [=](auto&& bias_at) HWY_ATTR {
    each([=](Vector s, const char* from, int64_t j) HWY_ATTR {
      const Vector bias = bias_at(from, j);
      return hn::IfThenElse(hn::Eq(bias, hidden), hidden, hn::MulAdd(s, scale, bias));
    });
  };
  const int64_t existing = block.sequence.kv_length - at.first;
  if (m.stride[3] != 1 || at.count > existing) {
    // Element by element. Lanes past the last key get a stale bias: hide_outside replaces their
    // scores afterwards.
    add([&](const char* from, int64_t j) HWY_ATTR {
      load_mask(m, from + j * m.stride[3] * element_bytes(m.dtype),
                std::clamp(existing - j, int64_t{0}, kLanes), scratch.mask_bias);
      return hn::Load(d, scratch.mask_bias);
    });
  } else if (m.dtype == DType::f32) {
    add([](const char* from, int64_t j) HWY_ATTR { return widen<DType::f32>(from, j); });
  } else if (m.dtype == DType::f16) {
    add([](const char* from, int64_t j) HWY_ATTR { return widen<DType::f16>(from, j); });
  } else if (m.dtype == DType::bf16) {
    add([](const char* from, int64_t j) HWY_ATTR { return widen<DType::bf16>(from, j); });
  } else {
    each([=](Vector s, const char* from, int64_t j) HWY_ATTR {
      const hn::Rebind<uint8_t, Floats> d8;
      const hn::Rebind<int32_t, Floats> d32;
      const auto seen =
          hn::PromoteTo(d32, hn::LoadU(d8, reinterpret_cast<const uint8_t*>(from) + j));
      return hn::IfThenElse(hn::RebindMask(d, hn::Eq(seen, hn::Zero(d32))), hidden,
                            hn::Mul(s, scale));
    });
  }
}

// Subtracts each row's slope times the distance between its diagonal and the key.
inline void add_alibi(const Block& block, const Scores& at) {
  const Floats d;
  const Tensor& slopes = block.run->args->alibi_slopes;
  for (int64_t r = 0; r < at.rows; ++r) {
    const int64_t i = block.query(at.row + r), head = block.head(at.row + r);
    const int64_t opposite = i + block.sequence.diagonal;
    const Vector slope =
        hn::Set(d, load_float(DType::f32, slopes.data,
                              block.batch * slopes.stride[0] + head * slopes.stride[1]));
    float* scores = at.data + r * at.stride;
    for (int64_t j = 0; j < at.count; j += kLanes) {
      const Vector distance = hn::Abs(hn::Iota(d, static_cast<float>(at.first + j - opposite)));
      hn::Store(hn::NegMulAdd(slope, distance, hn::Load(d, scores + j)), d, scores + j);
    }
  }
}

// Multiplies each key's products by the scale of its row of K.
inline void scale_keys(const Scores& at) {
  const Floats d;
  for (int64_t j = 0; j < at.count; j += kLanes) {
    const Vector scale = hn::LoadU(d, at.k_scales + j);
    for (int64_t r = 0; r < at.rows; ++r) {
      float* score = at.data + r * at.stride + j;
      hn::Store(hn::Mul(scale, hn::Load(d, score)), d, score);
    }
  }
}

// Turns products of q and k into scores. Does only what the Problem asks for; plain scores stay
// unscaled.
inline void adjust_scores(const Block& block, const Scratch& scratch, const Scores& at,
                          MaskEffect mask) {
  const Run& run = *block.run;
  const Problem& p = *run.problem;
  if (at.k_scales != nullptr) scale_keys(at);
  if (run.plain_scores && mask == MaskEffect::none) return;
  const Floats d;
  Vector scale = hn::Set(d, run.plain_scores ? 1.0f : run.score_scale);
  const auto each = [&](auto&& change) HWY_ATTR {
    for (int64_t r = 0; r < at.rows; ++r) {
      float* scores = at.data + r * at.stride;
      for (int64_t j = 0; j < at.count; j += kLanes)
        hn::Store(change(hn::Load(d, scores + j)), d, scores + j);
    }
  };
  if (p.softcap != 0) {
    const Vector cap = hn::Set(d, p.softcap);
    each([&](Vector s)
             HWY_ATTR { return hn::Mul(cap, hn::Tanh(d, hn::Div(hn::Mul(s, scale), cap))); });
    scale = hn::Set(d, 1.0f);
  }
  if (mask != MaskEffect::none) {
    mask_scores(block, scratch, at, scale);
  } else if (p.softcap == 0) {
    each([&](Vector s) HWY_ATTR { return hn::Mul(s, scale); });
  }
  if (p.alibi) add_alibi(block, at);
}

// Sets to -inf the scores of keys [first, first + count) that are outside the row's interval.
inline void hide_outside(KeyRange visible, int64_t first, int64_t count, float* scores) {
  const int64_t begin = std::clamp(visible.begin - first, int64_t{0}, count);
  const int64_t end = std::clamp(visible.end - first, begin, count);
  std::fill(scores, scores + begin, -INFINITY);
  std::fill(scores + end, scores + count, -INFINITY);
}

// Classifies n elements of a mask. `hides` and `keeps` take a tag and a vector of elements and
// return a mask of lanes: those that hide their key, and those that change nothing.
template <typename T, class Hides, class Keeps>
inline MaskEffect elements_effect(const T* from, int64_t n, const Hides& hides,
                                  const Keeps& keeps) {
  const hn::ScalableTag<T> d;
  const hn::CappedTag<T, 1> d1;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  bool all_hide = true, all_keep = true;
  int64_t j = 0;
  for (; j + lanes <= n && (all_hide || all_keep); j += lanes) {
    const auto v = hn::LoadU(d, from + j);
    all_hide = all_hide && hn::AllTrue(d, hides(d, v));
    all_keep = all_keep && hn::AllTrue(d, keeps(d, v));
  }
  for (; j < n && (all_hide || all_keep); ++j) {
    const auto v = hn::LoadU(d1, from + j);
    all_hide = all_hide && hn::AllTrue(d1, hides(d1, v));
    all_keep = all_keep && hn::AllTrue(d1, keeps(d1, v));
  }
  return all_keep ? MaskEffect::none : all_hide ? MaskEffect::hides_all : MaskEffect::some;
}

// What one row of the mask does to keys [begin, end). Returns `some` if it cannot be told quickly.
inline MaskEffect row_mask_effect(const Block& block, const Scratch& scratch, int64_t row,
                                  int64_t begin, int64_t end) {
  const Tensor& m = block.run->args->mask;
  const int64_t stride = m.stride[3];
  if (stride > 1 || stride < 0) return MaskEffect::some;
  const char* from = scratch.mask_rows[row] + begin * stride * element_bytes(m.dtype);
  const int64_t n = stride == 0 ? 1 : end - begin;
  if (m.dtype == DType::boolean) {
    return elements_effect(
        reinterpret_cast<const uint8_t*>(from), n,
        [](auto d, auto v) HWY_ATTR { return hn::Eq(v, hn::Zero(d)); },
        [](auto d, auto v) HWY_ATTR { return hn::Ne(v, hn::Zero(d)); });
  }
  const auto is_zero = [](auto d, auto v)
                           HWY_ATTR { return hn::Eq(hn::ShiftLeft<1>(v), hn::Zero(d)); };  // or -0
  if (m.dtype == DType::f32) {
    const uint32_t minus_infinity = 0xFF800000u;
    return elements_effect(
        reinterpret_cast<const uint32_t*>(from), n,
        [minus_infinity](auto d, auto v) HWY_ATTR { return hn::Eq(v, hn::Set(d, minus_infinity)); },
        is_zero);
  }
  const uint16_t minus_infinity = m.dtype == DType::f16 ? 0xFC00 : 0xFF80;
  return elements_effect(
      reinterpret_cast<const uint16_t*>(from), n,
      [minus_infinity](auto d, auto v) HWY_ATTR { return hn::Eq(v, hn::Set(d, minus_infinity)); },
      is_zero);
}

// The keys of a tile that some row of a group sees, as positions in the tile (none if begin >=
// end), and what the mask does to them.
struct GroupKeys {
  int64_t begin;
  int64_t end;
  MaskEffect mask;
};

// For rows [row, row + rows) of the block, and the tile of `count` keys that begins at key `first`.
inline GroupKeys group_keys(const Block& block, const Scratch& scratch, int64_t row, int64_t rows,
                            int64_t first, int64_t count) {
  GroupKeys keys{count, 0, MaskEffect::none};
  for (int64_t r = row; r < row + rows; ++r) {
    const int64_t begin = std::max(scratch.visible[r].begin - first, int64_t{0});
    const int64_t end = std::min(scratch.visible[r].end - first, count);
    if (begin < end) keys.begin = std::min(keys.begin, begin), keys.end = std::max(keys.end, end);
  }
  if (keys.begin >= keys.end || block.run->problem->mask == Mask::none) return keys;
  bool all_hidden = true, all_unchanged = true;
  for (int64_t r = row; r < row + rows && (all_unchanged || all_hidden); ++r) {
    const MaskEffect effect =
        row_mask_effect(block, scratch, r, first + keys.begin, first + keys.end);
    all_hidden = all_hidden && effect == MaskEffect::hides_all;
    all_unchanged = all_unchanged && effect == MaskEffect::none;
  }
  keys.mask = all_unchanged ? MaskEffect::none : MaskEffect::some;
  if (all_hidden) keys.end = keys.begin;
  return keys;
}

// The keys, widened to whole panels.
inline KeyRange whole_panels(const GroupKeys& keys, int64_t panel) {
  return {keys.begin / panel * panel, round_up(keys.end, panel)};
}

}  // namespace kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_SIMD_MASK_INL
