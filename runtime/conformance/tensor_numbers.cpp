// runtime/conformance/tensor_numbers.cpp: draws the numbers of a case's tensors
#include <algorithm>
#include <limits>
#include <optional>

#include "conformance/tensor_builder.hpp"
#include "kernels/common/half.hpp"
#include "kernels/common/sequence.hpp"
#include "kernels/reference/attention.hpp"
#include "kernels/reference/store.hpp"
#include "plugins/common/translate.hpp"

namespace attnrt::conformance {
namespace {

constexpr attnrt_dtype kFloat32{ATTNRT_DTYPE_FLOAT, 32, 1};
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// The standard deviation of q and k in style huge_logits: scores reach thousands.
constexpr double kHugeSpread = 60;

// The standard deviation of stored numbers that have a scale: most of i8's range is used. The scale
// is that much smaller.
constexpr double kStoredSpread = 30;

// What every byte of an output is before a run. The first is a NaN in every dtype, so that a plugin
// which reads its output is noticed. The second is for cases in which a NaN may be the right answer
// or the mistake that is looked for: it is a number larger than any result (6e4 in f16, 1e36 in the
// others).
constexpr std::byte kNanPoison{0xFF}, kNumberPoison{0x7B};

double lowest(attnrt_dtype dtype) {
  if (dtype.bits == 32) return -std::numeric_limits<float>::max();
  return dtype.code == ATTNRT_DTYPE_BFLOAT ? -double{kernels::bf16_to_f32(0x7F7F)} : -65504.0;
}

// Calls body(sequence, b, j, head_kv) for each key of each sequence.
template <class Body>
void for_each_key(const ReferenceRun& run, Body&& body) {
  for (int64_t b = 0; b < kernels::real_batch(run.problem, run.args); ++b) {
    const kernels::Sequence s = kernels::sequence(run.problem, run.args, b);
    for (int64_t j = 0; j < s.kv_length; ++j) {
      for (int64_t head = 0; head < run.problem.heads_kv; ++head) body(s, b, j, head);
    }
  }
}

bool any_query_sees(const ReferenceRun& run, const kernels::Sequence& s, int64_t b, int64_t j,
                    int64_t head_kv) {
  const int64_t group = run.problem.heads_q / run.problem.heads_kv;
  for (int64_t head = head_kv * group; head < (head_kv + 1) * group; ++head) {
    for (int64_t i = 0; i < s.q_length; ++i) {
      if (kernels::reference::visible(run.problem, run.args, s, b, i, head, j)) return true;
    }
  }
  return false;
}

}  // namespace

Tensors TensorBuilder::build() {
  make_layouts();
  fill_numbers();
  if (problem_.mask != ATTNRT_MASK_NONE) make_mask();
  if (case_.style == Style::nan_masked) hide_nan_in_masked_keys();
  if (case_.style == Style::nan_visible) put_nan_in_a_visible_key();
  poison_output(TensorName::out, 0);
  poison_output(TensorName::lse, 1);
  return std::move(tensors_);
}

// Fills an output with poison, and notes which bytes a run must write: those of elements, but not
// of spare rows.
void TensorBuilder::poison_output(TensorName name, int packed_dimension) {
  Image& image = tensors_[name];
  if (image.absent()) return;
  const bool nan_is_possible = case_.style == Style::nan_outside || has_nan_in_keys();
  image.poison = nan_is_possible ? kNumberPoison : kNanPoison;
  attnrt_tensor used = image.view;
  if (packed_q()) used.shape[packed_dimension] -= case_.spare_rows;
  make_output(image, used);
}

double TensorBuilder::uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }

// Draws a roughly normal number: the sum of 12 uniform ones has standard deviation 1. Unlike
// std::normal_distribution, this gives the same numbers with every standard library, and none
// beyond 6.
double TensorBuilder::normal() {
  double sum = -6;
  for (int n = 0; n < 12; ++n) sum += uniform();
  return sum;
}

void TensorBuilder::set(TensorName name, int64_t at, double value) {
  Image& image = tensors_[name];
  kernels::reference::store_nearest(attnrt_plugins::translate(image.view.dtype), image.first(), at,
                                    static_cast<float>(value));
}

// Draws a number of q, k or v as it is stored.
double TensorBuilder::draw_stored(TensorName name) {
  const bool scaled = name != TensorName::q && problem_.kv_scale != ATTNRT_KV_SCALE_NONE;
  const bool huge = case_.style == Style::huge_logits && name != TensorName::v;
  return normal() * (scaled ? kStoredSpread : huge ? kHugeSpread : 1);
}

// Draws a scale of k or v. A few are negative.
double TensorBuilder::draw_scale(TensorName name) {
  const bool huge = case_.style == Style::huge_logits && name == TensorName::k_scale;
  const double scale = (0.5 + uniform()) * (huge ? kHugeSpread : 1) / kStoredSpread;
  return one_in(random_, 8) ? -scale : scale;
}

// Fills q, k, v, scales, slopes and sinks. In style nan_outside, the k and v that belong to no
// sequence are NaN, and so are their scales if they have some of their own.
void TensorBuilder::fill_numbers() {
  const bool nan_outside = case_.style == Style::nan_outside;
  for (const TensorName name : {TensorName::q, TensorName::k, TensorName::v}) {
    if (tensors_[name].absent()) continue;
    const bool nan = nan_outside && name != TensorName::q && kv_has_nan();
    for_each_element(tensors_[name].view,
                     [&](int64_t at) { set(name, at, nan ? kNan : draw_stored(name)); });
  }
  for (const TensorName name : {TensorName::k_scale, TensorName::v_scale}) fill_scales(name);
  if (nan_outside) fill_existing_keys();
  if (problem_.alibi) make_slopes();
  if (problem_.sinks) {
    make_dense(TensorName::sinks, kFloat32, {problem_.heads_q});
    fill_floats(TensorName::sinks, problem_.heads_q, -2, 3);
    if (one_in(random_, 6)) set(TensorName::sinks, 0, -kInfinity);
  }
}

void TensorBuilder::fill_scales(TensorName name) {
  if (tensors_[name].absent()) return;
  const bool nan = case_.style == Style::nan_outside && has_token_scales();
  const attnrt_tensor& view = tensors_[name].view;
  for_each_element(view, [&](int64_t at) { set(name, at, nan ? kNan : draw_scale(name)); });
}

void TensorBuilder::fill_existing_keys() {
  const ReferenceRun run = reference_run(case_, tensors_);
  for (const TensorName name : {TensorName::k, TensorName::v}) {
    if (tensors_[name].absent()) continue;
    const bool is_k = name == TensorName::k;
    const TensorName scale = is_k ? TensorName::k_scale : TensorName::v_scale;
    const kernels::Tensor& t = is_k ? run.args.k : run.args.v;
    const kernels::Tensor& scales = is_k ? run.args.k_scale : run.args.v_scale;
    const int64_t width = is_k ? problem_.head_dim : problem_.head_dim_v;
    for_each_key(run, [&](const kernels::Sequence& s, int64_t b, int64_t j, int64_t head) {
      const int64_t row = kernels::key_row(run.problem, run.args, t, s, b, j, head);
      for (int64_t x = 0; x < width; ++x) set(name, row + x, draw_stored(name));
      if (!has_token_scales()) return;
      set(scale, kernels::scale_element(run.problem, run.args, scales, s, b, j, head),
          draw_scale(scale));
    });
  }
}

// Makes slopes of each sequence, or, in half of the cases, the same ones for all of them.
void TensorBuilder::make_slopes() {
  const auto batch = static_cast<int64_t>(case_.q_lengths.size());
  const bool shared = one_in(random_, 2);
  make_dense(TensorName::alibi_slopes, kFloat32, {shared ? 1 : batch, problem_.heads_q});
  fill_floats(TensorName::alibi_slopes, (shared ? 1 : batch) * problem_.heads_q, 0.02, 0.5);
  attnrt_tensor& view = tensors_[TensorName::alibi_slopes].view;
  view.shape[0] = batch;
  if (shared) view.stride[0] = 0;
}

void TensorBuilder::fill_floats(TensorName name, int64_t count, double low, double high) {
  for (int64_t n = 0; n < count; ++n) set(name, n, low + (high - low) * uniform());
}

void TensorBuilder::make_mask() {
  const attnrt_dtype dtype = problem_.mask == ATTNRT_MASK_BOOLEAN
                                 ? core::default_problem().mask_dtype
                                 : problem_.mask_dtype;
  make_dense(TensorName::mask, dtype, {case_.batch, problem_.heads_q, case_.seq_q, case_.seq_kv});
  attnrt_tensor& view = tensors_[TensorName::mask].view;
  const int64_t gap = one_in(random_, 3) ? between(random_, 1, 9) : 0;
  view.stride[2] = case_.seq_kv + gap;
  const int64_t head_elements = view.stride[2] * std::max<int64_t>(1, case_.seq_q);
  view.stride[1] = one_in(random_, 2) ? 0 : head_elements;
  const int64_t sequence_elements = head_elements * (view.stride[1] == 0 ? 1 : problem_.heads_q);
  view.stride[0] = one_in(random_, 3) ? 0 : sequence_elements;
  if (case_.style != Style::empty_rows && one_in(random_, 5))
    view.stride[2] = 0;  // one row for all queries
  allocate(TensorName::mask, dtype.bits / 8);
  const int64_t threshold = between(random_, 1, 3);  // a quarter to three quarters are visible
  for_each_element(view, [&](int64_t at) {
    set_mask(at, between(random_, 0, 3) >= threshold ? MaskEntry::hidden : MaskEntry::visible);
  });
  draw_mask_patterns();
}

void TensorBuilder::set_mask(int64_t at, MaskEntry entry) {
  Image& image = tensors_[TensorName::mask];
  if (problem_.mask == ATTNRT_MASK_BOOLEAN) {  // any byte but 0 is true
    const int byte = entry == MaskEntry::hidden ? 0 : one_in(random_, 8) ? 2 : 1;
    image.first()[at] = std::byte(byte);
    return;
  }
  set(TensorName::mask, at,
      entry == MaskEntry::hidden   ? -kInfinity
      : entry == MaskEntry::lowest ? lowest(image.view.dtype)
                                   : normal());
}

// Overwrites a third of the rows and some columns with what the style asks for.
void TensorBuilder::draw_mask_patterns() {
  const attnrt_tensor& t = tensors_[TensorName::mask].view;
  const int64_t keys = t.shape[3];
  const int64_t hidden_key = case_.seq_kv > 1 ? between(random_, 0, case_.seq_kv - 1) : -1;
  // The entry that the style asks for at query i and key j, if any.
  const auto pattern = [&](int64_t i, int64_t j) -> std::optional<MaskEntry> {
    if (case_.style == Style::nan_masked && j == hidden_key) return MaskEntry::hidden;
    if (case_.style == Style::lowest_mask)
      return i % 3 == 0 || j % 2 == 0 ? MaskEntry::lowest : MaskEntry::visible;
    if (case_.style != Style::empty_rows) return std::nullopt;
    if (i % 3 == 0) return MaskEntry::hidden;  // a row that sees nothing
    if (i % 3 == 1)                            // leading blocks of keys that are hidden
      return j < keys / 2 ? MaskEntry::hidden : MaskEntry::visible;
    return std::nullopt;
  };
  for (int64_t b = 0; b < t.shape[0]; ++b) {
    for (int64_t head = 0; head < t.shape[1]; ++head) {
      for (int64_t i = 0; i < t.shape[2]; ++i) {
        for (int64_t j = 0; j < keys; ++j) {
          const std::optional<MaskEntry> entry = pattern(i, j);
          const int64_t at =
              b * t.stride[0] + head * t.stride[1] + i * t.stride[2] + j * t.stride[3];
          if (entry) set_mask(at, *entry);
        }
      }
    }
  }
}

// Puts NaN into k at each key that no query sees: into its numbers, but not those that are v as
// well, and into its scale, if that is not v's as well.
void TensorBuilder::hide_nan_in_masked_keys() {
  const attnrt_tensor& t = tensors_[TensorName::k].view;
  const bool shared = t.ndim == 4 && t.stride[0] == 0 && case_.batch > 1;
  if (shared) return;  // a query of another sequence may see the key
  const ReferenceRun run = reference_run(case_, tensors_);
  for_each_key(run, [&](const kernels::Sequence& s, int64_t b, int64_t j, int64_t head) {
    if (any_query_sees(run, s, b, j, head)) return;
    const int64_t row = kernels::key_row(run.problem, run.args, run.args.k, s, b, j, head);
    const int64_t first = problem_.v_in_k ? problem_.head_dim_v : 0;
    for (int64_t x = first; x < problem_.head_dim && kv_has_nan(); ++x)
      set(TensorName::k, row + x, kNan);
    if (has_token_scales() && !problem_.v_in_k) {
      const kernels::Tensor& scales = run.args.k_scale;
      set(TensorName::k_scale, kernels::scale_element(run.problem, run.args, scales, s, b, j, head),
          kNan);
    }
    ++tensors_.nan_keys;
  });
}

// Puts one NaN into k at a key that some query sees, where it is not v as well. Looks at the
// visible keys in turn: key 0 of a sequence gets the NaN at once, any other with probability 1/4.
// So there may be none.
void TensorBuilder::put_nan_in_a_visible_key() {
  const ReferenceRun run = reference_run(case_, tensors_);
  const kernels::Problem& problem = run.problem;
  const kernels::Args& args = run.args;
  for_each_key(run, [&](const kernels::Sequence& s, int64_t b, int64_t j, int64_t head) {
    if (tensors_.nan_keys > 0 || !any_query_sees(run, s, b, j, head)) return;
    if (j > 0 && !one_in(random_, 4)) return;
    if (kv_has_nan()) {
      const int64_t column = problem.v_in_k ? problem.head_dim - 1 : 0;
      set(TensorName::k, kernels::key_row(problem, args, args.k, s, b, j, head) + column, kNan);
    } else {
      const kernels::Tensor& scales = args.k_scale;
      set(TensorName::k_scale, kernels::scale_element(problem, args, scales, s, b, j, head), kNan);
    }
    ++tensors_.nan_keys;
  });
}

}  // namespace attnrt::conformance
