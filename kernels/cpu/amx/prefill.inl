// kernels/cpu/amx/prefill.inl: one block of f16 or bf16 rows into its rows of out and lse, by matrix tiles of bf16 operands
// (included by targets.cpp, once for each target that has them)
//
// With f16, q k is four products of parts and exact as ever, and weights times v are three: what the low parts are to each
// other, below 2^-14 of a weight, is left out. Weights are rounded to bf16, or to the sum of two. Scores live for one chunk,
// in the first cache; its weights are kept until a tile of keys is done.

// The group's rows of q times the tile's keys from `key` on.
template <class Tiles>
inline void multiply_chunk(const Run& run, const Scratch& scratch, const GroupTile& at,
                           const Operands& operands, int64_t key) {
  const int64_t padded = round_up(run.problem->head_dim, kTileDepth);
  const TileShape shape{.a_stride = scratch.q_stride,
                        .a_lower = kTileRows * scratch.q_stride,
                        .a_step = kTileDepth,
                        .steps = padded / kTileDepth,
                        .b_stride = kTileColumns * padded,
                        .c_stride = kChunkKeys};
  const uint16_t* q[2] = {scratch.q16 + at.row * scratch.q_stride,
                          scratch.q16 + (run.cut.block_rows + at.row) * scratch.q_stride};
  const bool two = run.cut.parts == 2;
  const Term terms[2] = {
      {q[0], two ? q[1] : nullptr, operands.keys[0] + key * padded},
      {q[0], two ? q[1] : nullptr, two ? operands.keys[1] + key * padded : nullptr}};
  Tiles::template multiply<true, false>(terms, two ? 2 : 1, shape, scratch.scores);
}

// Weights of the tile's keys [begin, end) times their values, added to out.
template <class Tiles>
inline void multiply_values(const Run& run, const Scratch& scratch, const GroupTile& at,
                            const Operands& operands, int64_t begin, int64_t end) {
  if (begin >= end) return;
  const bool two = run.cut.parts == 2;
  const TileShape shape{.a_stride = kChunkKeys,
                        .a_lower = kTileRows * kMatrixTileKeys,
                        .a_step = kTileRows * kChunkKeys,
                        .steps = (end - begin) / kTileDepth,
                        .b_stride = kMatrixTileKeys * kTileColumns,
                        .c_stride = scratch.v_stride};
  const uint16_t* weights = scratch.weights + begin * kTileRows;
  const uint16_t* low = weights + kMatrixRows * kMatrixTileKeys;
  float* out = scratch.out + at.row * scratch.v_stride;
  for (int64_t column = 0; column < scratch.v_stride; column += 2 * kTileColumns) {
    const int64_t from = column * kMatrixTileKeys + begin * kTileColumns;
    const Term terms[2] = {{weights, two ? low : nullptr, operands.values[0] + from},
                           {weights, nullptr, two ? operands.values[1] + from : nullptr}};
    if (column + kTileColumns < scratch.v_stride) {
      Tiles::template multiply<true, true>(terms, two ? 2 : 1, shape, out + column);
    } else {
      Tiles::template multiply<false, true>(terms, two ? 2 : 1, shape, out + column);
    }
  }
}

// The scores of keys from `key` on: softcap, mask and what else the Problem asks for, and -inf outside of a row's interval.
inline void adjust_chunk(const Block& block, const Scratch& scratch, const GroupTile& at,
                         int64_t key) {
  adjust_scores(block, scratch,
                {at.row, at.rows, at.first + key, kChunkKeys, scratch.scores, kChunkKeys},
                at.keys.left);
  if (key >= at.inside.begin && key + kChunkKeys <= at.inside.end) return;
  for (int64_t r = 0; r < at.rows; ++r) {
    hide_outside(scratch.seen[at.row + r], at.first + key, kChunkKeys,
                 scratch.scores + r * kChunkKeys);
  }
}

template <class Tiles, class Bf16>
inline void attend_matrix_group(const Block& block, const Scratch& scratch, const GroupTile& at,
                                const Operands& operands) {
  const Run& run = *block.run;
  References known = references_of(scratch, at);
  bool rising =
      false;  // where maxima rose, they may well go on: then it is asked first whether they do
  const KeyRange panels = whole_panels(at.keys, kChunkKeys);
  int64_t added = panels.begin;
  for (int64_t key = panels.begin; key < panels.end; key += kChunkKeys) {
    multiply_chunk<Tiles>(run, scratch, at, operands, key);
    adjust_chunk(block, scratch, at, key);
    if (known.all && !rising) {
      if (weigh_chunk<Bf16>(run, scratch, at, key, known.less)) continue;
      restore_sums(scratch, at);
    }
    rising = exceeds(scratch, at);
    if (rising) {
      multiply_values<Tiles>(run, scratch, at, operands, added,
                             key);  // their weights go by the old references
      added = key;
      for (int64_t r = 0; r < at.rows; ++r) {
        const float highest = hn::GetLane(hn::MaxOfLanes(Floats(), highest_scores(scratch, r)));
        if (highest > scratch.limit[at.row + r]) raise_reference(run, scratch, at.row + r, highest);
      }
      known = references_of(scratch, at);
    }
    weigh_chunk<Bf16>(run, scratch, at, key, known.less);
  }
  multiply_values<Tiles>(run, scratch, at, operands, added, panels.end);
}

template <class Tiles, class Bf16>
void attend_matrix(const Run& run, int64_t index, int32_t worker) {
  if (run.problem->dtype == DType::f32) return attend(run, index, worker);
  const Block block = block_at(run, index);
  if (block.rows <= 0 || is_decode(block.sequence.q_length, run.group)) return;
  const Scratch scratch = scratch_of(run, worker);
  start_scratch(scratch);
  pack_matrix_queries<Bf16>(block, scratch);
  const KeyRange seen = start_rows(block, scratch, run.problem->sinks);
  start_references(block, scratch);
  // Rows that fill up the last group have any weights; what they add up is not read.
  std::fill(scratch.out + block.rows * scratch.v_stride,
            scratch.out + round_up(block.rows, kMatrixRows) * scratch.v_stride, 0.0f);
  Tiles::start();
  for (int64_t first = seen.begin / kMatrixTileKeys * kMatrixTileKeys; first < seen.end;
       first += kMatrixTileKeys) {
    const int64_t count = std::min(kMatrixTileKeys, block.sequence.kv_length - first);
    const Operands operands = operands_of<Bf16>(block, scratch, first);
    for (int64_t row = 0; row < block.rows; row += kMatrixRows) {
      const int64_t rows = std::min(kMatrixRows, block.rows - row);
      const GroupKeys keys = group_keys(block, scratch, row, rows, first, count);
      if (keys.begin >= keys.end) continue;
      // Both ends never decrease from row to row.
      const KeyRange inside{scratch.seen[row + rows - 1].begin - first,
                            scratch.seen[row].end - first};
      attend_matrix_group<Tiles, Bf16>(block, scratch, {row, rows, first, keys, inside}, operands);
    }
  }
  Tiles::stop();
  finish_rows(block, scratch, [&](int64_t row) { return weight_of_max(run, scratch, row); });
}

void pack_matrix(const Run& run, int64_t index, int32_t worker) {
  if (run.problem->dtype == DType::f32) return pack(run, index, worker);
  pack_shared(run, index, worker, pack_matrix_tile);
}
