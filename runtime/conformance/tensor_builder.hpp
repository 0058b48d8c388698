// runtime/conformance/tensor_builder.hpp: draws the layouts and the numbers of a case's tensors
//
// First come the layouts (tensor_layouts.cpp): shape, strides, alignment and an image that is
// filled with a byte. q, k, v and out are dense, packed or paged; the heads' stride is smaller or
// larger than that of the sequence; rows and batches may have gaps; k and v may be one cache for
// the whole batch (stride 0), or views of one allocation (KvMemory). Scales have the dimensions of
// k that the host gives them. Then come the numbers (tensor_numbers.cpp): normally distributed ones
// for q, k and v, then scales, slopes, sinks and the mask, and last what the style asks for. All of
// them draw from one generator, so their order is fixed.
#pragma once

#include <initializer_list>
#include <vector>

#include "conformance/tensors.hpp"

namespace attnrt::conformance {

class TensorBuilder {
 public:
  explicit TensorBuilder(const Case& drawn)
      : case_(drawn), problem_(drawn.problem), random_(drawn.seed * 0xD1342543DE82EF95u + 7) {}
  Tensors build();

 private:
  // ---- tensor_layouts.cpp ----
  void make_layouts();
  void make_indices();
  void make_page_table();
  void make_diagonal_offsets();
  void share_kv_memory();
  void make_rows(TensorName name, attnrt_dtype dtype, int64_t head_dim, bool of_queries);
  void make_scales(TensorName name);
  // Makes a dense tensor: lse, the mask, index arrays, slopes, sinks.
  void make_dense(TensorName name, attnrt_dtype dtype, std::initializer_list<int64_t> shape);
  // Makes room for the view's elements. Every byte is filled: with NaN in style nan_outside, else
  // with a number.
  void allocate(TensorName name, int64_t alignment);
  void set_index(TensorName name, int64_t at, int64_t value);

  // ---- tensor_numbers.cpp ----
  void fill_numbers();
  void fill_scales(TensorName name);
  void fill_existing_keys();
  void make_slopes();
  void fill_floats(TensorName name, int64_t count, double low, double high);
  void make_mask();
  void draw_mask_patterns();
  enum class MaskEntry { hidden, visible, lowest };
  void set_mask(int64_t at, MaskEntry entry);
  void hide_nan_in_masked_keys();
  void put_nan_in_a_visible_key();
  void poison_output(TensorName name, int packed_dimension);
  void set(TensorName name, int64_t at, double value);
  double draw_stored(TensorName name);
  double draw_scale(TensorName name);
  double uniform();  // from 0 to 1, without 1
  double normal();

  bool has_nan_in_keys() const {
    return case_.style == Style::nan_masked || case_.style == Style::nan_visible;
  }
  bool kv_has_nan() const { return core::dtype_name(problem_.kv_dtype) != "i8"; }
  bool has_token_scales() const { return problem_.kv_scale == ATTNRT_KV_SCALE_TOKEN; }
  bool packed_q() const { return problem_.varlen != 0; }
  bool packed_kv() const { return problem_.varlen != 0 && problem_.page_size == 0; }
  int64_t total(const std::vector<int64_t>& lengths) const;  // rows of a packed tensor

  const Case& case_;
  const core::Problem& problem_;
  Random random_;
  Tensors tensors_;
};

}  // namespace attnrt::conformance
