// kernels/cpu/tile.inl: one tile of keys into what it adds to a block's rows (included by targets.cpp, once per target)

// Softmax state, outputs and the interval of keys of every row; returns the interval that some row of the block sees.
inline KeyRange start_rows(const Block& block, const Scratch& scratch) {
  const Problem& p = *block.run->problem;
  const Tensor& sinks = block.run->args->sinks;
  KeyRange seen{INT64_MAX, 0};
  for (int64_t r = 0; r < block.rows; ++r) {
    const KeyRange keys = visible_keys(p, block.query(r), block.sequence.q_length, block.sequence.kv_length);
    scratch.seen[r] = keys;
    if (keys.begin < keys.end) seen = {std::min(seen.begin, keys.begin), std::max(seen.end, keys.end)};
    SoftmaxState state;
    if (p.sinks) state = start_with_sink(load_float(DType::f32, sinks.data, block.head(r) * sinks.stride[0]));
    scratch.max[r] = state.max;
    float* sum = scratch.sum + r * kSumLanes;
    std::fill(sum, sum + kSumLanes, 0.0f);
    sum[0] = state.sum;
  }
  std::fill(scratch.out, scratch.out + block.rows * scratch.v_stride, 0.0f);
  std::fill(scratch.zeros, scratch.zeros + scratch.q_stride, 0.0f);
  std::fill(scratch.bias, scratch.bias + kTileKeys, 0.0f);
  return seen;
}

// The keys of the tile at `first` that some row of the group sees, as positions in the tile; empty if none.
inline KeyRange group_keys(const Scratch& scratch, int64_t group, int64_t rows, int64_t first, int64_t count) {
  KeyRange seen{count, 0};
  for (int64_t r = group; r < group + rows; ++r) {
    const int64_t begin = std::max(scratch.seen[r].begin - first, int64_t{0});
    const int64_t end = std::min(scratch.seen[r].end - first, count);
    if (begin < end) seen = {std::min(seen.begin, begin), std::max(seen.end, end)};
  }
  return seen;
}

// Scores of one row into weights.
inline void weigh_row(const Block& block, const Scratch& scratch, int64_t row, int64_t first, KeyRange panels) {
  const Problem& p = *block.run->problem;
  float* scores = scratch.scores + row * kTileKeys;
  if (p.mask != Mask::none || p.softcap != 0 || p.alibi) {
    adjust_row(block, scratch, row, first, panels.begin, panels.end, scores);
  }
  // What lies outside the row's interval, or does not exist. Interior tiles have none of it.
  const int64_t begin = std::clamp(scratch.seen[row].begin - first, panels.begin, panels.end);
  const int64_t end = std::clamp(scratch.seen[row].end - first, begin, panels.end);
  std::fill(scores + panels.begin, scores + begin, -INFINITY);
  std::fill(scores + end, scores + panels.end, -INFINITY);
  scratch.rescale[row] =
      softmax_row(scores, panels.begin, panels.end, scratch.max + row, scratch.sum + row * kSumLanes);
}

// REQUIRES: some row of the block sees a key of the tile.
inline void attend_tile(const Block& block, const Scratch& scratch, int64_t first, int64_t count) {
  const int64_t head_dim = block.run->problem->head_dim;
  pack_keys(block, scratch, first, count);
  KeyRange seen[kBlockRows / kRowGroup];
  for (int64_t group = 0; group < block.rows; group += kRowGroup) {
    seen[group / kRowGroup] = group_keys(scratch, group, std::min(kRowGroup, block.rows - group), first, count);
  }

  for (int64_t panel = 0; panel < count; panel += kPanel) {  // outside: a panel stays in the first cache
    for (int64_t group = 0; group < block.rows; group += kRowGroup) {
      const KeyRange keys = seen[group / kRowGroup];
      if (keys.begin >= keys.end || keys.end <= panel || keys.begin >= panel + kPanel) continue;
      score_rows(std::min(kRowGroup, block.rows - group), scratch.q + group * scratch.q_stride, scratch.q_stride,
                 scratch.keys + panel * head_dim, head_dim, scratch.scores + group * kTileKeys + panel);
    }
  }

  for (int64_t row = 0; row < block.rows; ++row) {
    const KeyRange keys = seen[row / kRowGroup];
    if (keys.begin >= keys.end) continue;
    weigh_row(block, scratch, row, first, {keys.begin / kPanel * kPanel, round_up(keys.end, kPanel)});
  }

  pack_values(block, scratch, first, count);
  for (int64_t column = 0; column < scratch.v_stride; column += kPanel) {
    const int64_t vectors = std::min(int64_t{kVectors}, (scratch.v_stride - column) / kLanes);
    for (int64_t group = 0; group < block.rows; group += kRowGroup) {
      const KeyRange keys = seen[group / kRowGroup];
      if (keys.begin >= keys.end) continue;
      value_columns(vectors, std::min(kRowGroup, block.rows - group), scratch.scores + group * kTileKeys,
                    scratch.values + column, scratch.v_stride, keys.begin, keys.end, scratch.rescale + group,
                    scratch.out + group * scratch.v_stride + column, scratch.v_stride);
    }
  }
}
