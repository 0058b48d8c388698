// kernels/cpu/decode.inl: the few rows of a decode step against K and V where they lie (included by targets.cpp, once per
// target)
//
// With one row group in all, each element of K and V is used a few times only: packing it would cost more than it saves.

// Decided by the sequence alone, so that a row's bits do not depend on blocks or threads.
inline bool is_decode(const Block& block) { return block.sequence.q_length * block.run->group <= kRowGroup; }

template <int kRows>
inline void dot_rows(const float* HWY_RESTRICT q, int64_t q_stride, const float* HWY_RESTRICT key, int64_t length,
                     float* HWY_RESTRICT scores) {
  const Floats d;
  Vector sum[kRows];
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) sum[r] = hn::Zero(d);
  for (int64_t x = 0; x < length; x += kLanes) {
    const Vector k = hn::LoadU(d, key + x);
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) sum[r] = hn::MulAdd(hn::Load(d, q + r * q_stride + x), k, sum[r]);
  }
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) scores[r * kTileKeys] = hn::GetLane(hn::SumOfLanes(d, sum[r]));
}

// Scores of keys [begin, end) of the tile at `first`.
template <int kRows>
inline void score_keys(const Block& block, const Scratch& scratch, int64_t first, KeyRange keys) {
  const Run& run = *block.run;
  const Tensor& k = run.args->k;
  const int64_t head_dim = run.problem->head_dim;
  const bool in_place = k.dtype == DType::f32 && head_dim % kLanes == 0;
  for (int64_t j = keys.begin; j < keys.end; ++j) {
    const int64_t offset = key_row(*run.problem, *run.args, k, block.sequence, block.batch, first + j, block.head_kv);
    const char* from = element(k, offset);
    if (!in_place) load_row(k.dtype, from, head_dim, scratch.rows);
    const float* key = in_place ? reinterpret_cast<const float*>(from) : scratch.rows;
    dot_rows<kRows>(scratch.q, scratch.q_stride, key, in_place ? head_dim : scratch.q_stride, scratch.scores + j);
  }
}

inline void score_decode(const Block& block, const Scratch& scratch, int64_t first, KeyRange keys) {
  switch (block.rows) {
    case 1: return score_keys<1>(block, scratch, first, keys);
    case 2: return score_keys<2>(block, scratch, first, keys);
    case 3: return score_keys<3>(block, scratch, first, keys);
    case 4: return score_keys<4>(block, scratch, first, keys);
    case 5: return score_keys<5>(block, scratch, first, keys);
    default: return score_keys<6>(block, scratch, first, keys);
  }
}

// V's rows of a tile, and their stride, without a copy where they are whole vectors of floats at one stride.
struct ValueRows {
  const float* data;
  int64_t stride;
};

inline ValueRows value_rows_in_place(const Block& block, int64_t first) {
  const Run& run = *block.run;
  const Problem& p = *run.problem;
  const Tensor& v = run.args->v;
  if (v.dtype != DType::f32 || p.head_dim_v % kPadFloats != 0 || p.page_size > 0) return {nullptr, 0};
  const int64_t here = key_row(p, *run.args, v, block.sequence, block.batch, first, block.head_kv);
  const int64_t next = key_row(p, *run.args, v, block.sequence, block.batch, first + 1, block.head_kv);
  return {reinterpret_cast<const float*>(element(v, here)), next - here};
}

// REQUIRES: is_decode(block), and some row sees a key of the tile.
inline void attend_decode_tile(const Block& block, const Scratch& scratch, int64_t first, int64_t count) {
  const KeyRange keys = group_keys(scratch, 0, block.rows, first, count);
  if (keys.begin >= keys.end) return;
  score_decode(block, scratch, first, keys);
  for (int64_t row = 0; row < block.rows; ++row) {
    weigh_row(block, scratch, row, first, {keys.begin / kPanel * kPanel, round_up(keys.end, kPanel)});
  }
  ValueRows values = value_rows_in_place(block, first);
  if (values.data == nullptr) {
    pack_values(block, scratch, first, count);
    values = {scratch.values, scratch.v_stride};
  }
  for (int64_t column = 0; column < scratch.v_stride; column += kPanel) {
    const int64_t vectors = std::min(int64_t{kVectors}, (scratch.v_stride - column) / kLanes);
    value_columns(vectors, block.rows, scratch.scores, values.data + column, values.stride, keys.begin, keys.end,
                  scratch.rescale, scratch.out + column, scratch.v_stride);
  }
}
