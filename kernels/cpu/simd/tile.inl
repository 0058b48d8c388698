// kernels/cpu/simd/tile.inl: one tile of keys into what it adds to a block's rows (included by targets.cpp, once per target)

// Softmax state, outputs and the interval of keys of every row; returns the interval that some row of the block sees.
inline KeyRange start_rows(const Block& block, const Scratch& scratch, bool sinks) {
  const Problem& p = *block.run->problem;
  const Tensor& t = block.run->args->sinks;
  KeyRange seen{INT64_MAX, 0};
  for (int64_t r = 0; r < block.rows; ++r) {
    const int64_t i = block.query(r), head = block.head(r);
    if (p.mask != Mask::none) {
      const Tensor& m = block.run->args->mask;
      scratch.mask[r] =
          element(m, block.batch * m.stride[0] + head * m.stride[1] + i * m.stride[2]);
    }
    const KeyRange keys = visible_keys(p, i, block.sequence.q_length, block.sequence.kv_length);
    scratch.seen[r] = keys;
    if (keys.begin < keys.end)
      seen = {std::min(seen.begin, keys.begin), std::max(seen.end, keys.end)};
    SoftmaxState state;
    if (sinks) state = start_with_sink(load_float(DType::f32, t.data, head * t.stride[0]));
    scratch.max[r] = state.max;
    float* sum = scratch.sum + r * kSumLanes;
    std::fill(sum, sum + kSumLanes, 0.0f);
    sum[0] = state.sum;
  }
  std::fill(scratch.out, scratch.out + block.rows * scratch.v_stride, 0.0f);
  return seen;
}

// A group's keys of a tile, as positions in it (empty: begin >= end), and what the mask leaves of them.
struct GroupKeys {
  int64_t begin;
  int64_t end;
  Left left;
};

inline GroupKeys group_keys(const Block& block, const Scratch& scratch, int64_t group, int64_t rows,
                            int64_t first, int64_t count) {
  GroupKeys keys{count, 0, Left::all};
  for (int64_t r = group; r < group + rows; ++r) {
    const int64_t begin = std::max(scratch.seen[r].begin - first, int64_t{0});
    const int64_t end = std::min(scratch.seen[r].end - first, count);
    if (begin < end) keys.begin = std::min(keys.begin, begin), keys.end = std::max(keys.end, end);
  }
  if (keys.begin >= keys.end || block.run->problem->mask == Mask::none) return keys;
  bool any = false, every = true;
  for (int64_t r = group; r < group + rows && (every || !any); ++r) {
    const Left left = row_left(block, scratch, r, first + keys.begin, first + keys.end);
    any = any || left != Left::none;
    every = every && left == Left::all;
  }
  keys.left = every ? Left::all : Left::some;
  if (!any) keys.end = keys.begin;
  return keys;
}

// Adjusted scores of one row, `panels` of the tile at `first`, into weights in their place.
inline void weigh_row(const Block& block, const Scratch& scratch, int64_t row, int64_t first,
                      KeyRange panels, float* scores) {
  const Run& run = *block.run;
  hide_outside(scratch.seen[row], first + panels.begin, panels.end - panels.begin,
               scores + panels.begin);
  float* max = scratch.max + row;
  float* sum = scratch.sum + row * kSumLanes;
  scratch.rescale[row] =
      run.plain ? softmax_row<true>(run.exponent, scores, panels.begin, panels.end, max, sum)
                : softmax_row<false>(run.exponent, scores, panels.begin, panels.end, max, sum);
}

inline KeyRange whole_panels(const GroupKeys& keys, int64_t panel) {
  return {keys.begin / panel * panel, round_up(keys.end, panel)};
}

inline void pack_float_tile(const Block& block, const Scratch& scratch, int64_t first,
                            int64_t begin, int64_t end, char* to) {
  float* keys = reinterpret_cast<float*>(to);
  pack_keys(block, scratch, first, begin, end, keys);
  pack_values(block, scratch, first, begin, end,
              keys + packed_key_elements(*block.run->problem, block.run->cut));
}

// Groups whose scores stay in a near cache between the two products.
constexpr int64_t kGroupsAtOnce = 16;

Cut float_cut(const Problem& problem) {
  Cut cut{};
  cut.row_group = kRowGroup;
  cut.block_rows = kBlockRows;
  cut.least_rows = kBlockRows / 8;
  cut.tile_keys = kTileKeys;
  cut.element = sizeof(float);
  cut.head_pad = 1;
  cut.head_v_pad = kPadFloats;
  cut.score_rows = kGroupsAtOnce * kRowGroup;
  cut.score_keys = kTileKeys;
  cut.share =
      problem.dtype == DType::f32;  // f16 and bf16 would be twice as large as they are given
  return cut;
}

// Groups [begin, end) of the block's rows against a packed tile.
inline void attend_groups(const Block& block, const Scratch& scratch, int64_t first, int64_t count,
                          const float* keys, const float* values, int64_t begin, int64_t end) {
  const int64_t head_dim = block.run->problem->head_dim;
  const auto rows_of = [&](int64_t group) {
    return std::min(kRowGroup, block.rows - group * kRowGroup);
  };
  GroupKeys seen[kGroupsAtOnce];
  for (int64_t g = begin; g < end; ++g) {
    seen[g - begin] = group_keys(block, scratch, g * kRowGroup, rows_of(g), first, count);
  }
  for (int64_t panel = 0; panel < count;
       panel += kPanel) {  // outside: a panel stays in the first cache
    for (int64_t g = begin; g < end; ++g) {
      const GroupKeys& k = seen[g - begin];
      if (k.begin >= k.end || k.end <= panel || k.begin >= panel + kPanel) continue;
      score_rows(rows_of(g), scratch.q + g * kRowGroup * scratch.q_stride, scratch.q_stride,
                 keys + panel * head_dim, head_dim,
                 scratch.scores + (g - begin) * kRowGroup * kTileKeys + panel);
    }
  }
  for (int64_t g = begin; g < end; ++g) {
    const GroupKeys& k = seen[g - begin];
    if (k.begin >= k.end) continue;
    const KeyRange panels = whole_panels(k, kPanel);
    float* scores = scratch.scores + (g - begin) * kRowGroup * kTileKeys;
    adjust_scores(block, scratch,
                  {g * kRowGroup, rows_of(g), first + panels.begin, panels.end - panels.begin,
                   scores + panels.begin, kTileKeys},
                  k.left);
    for (int64_t r = 0; r < rows_of(g); ++r) {
      weigh_row(block, scratch, g * kRowGroup + r, first, panels, scores + r * kTileKeys);
    }
  }
  for (int64_t column = 0; column < scratch.v_stride; column += kPanel) {
    const int64_t vectors = std::min(int64_t{kVectors}, (scratch.v_stride - column) / kLanes);
    for (int64_t g = begin; g < end; ++g) {
      const GroupKeys& k = seen[g - begin];
      if (k.begin >= k.end) continue;
      const int64_t row = g * kRowGroup;
      value_columns(vectors, rows_of(g), scratch.scores + (g - begin) * kRowGroup * kTileKeys,
                    values + column, scratch.v_stride, k.begin, k.end, scratch.rescale + row,
                    scratch.out + row * scratch.v_stride + column, scratch.v_stride);
    }
  }
}

// REQUIRES: some row of the block sees a key of the tile.
inline void attend_tile(const Block& block, const Scratch& scratch, int64_t first) {
  const Run& run = *block.run;
  const int64_t count = std::min(kTileKeys, block.sequence.kv_length - first);
  const char* packed = packed_tile(block, scratch, first, pack_float_tile);
  const float* keys = reinterpret_cast<const float*>(packed);
  const float* values = keys + packed_key_elements(*run.problem, run.cut);
  const int64_t groups = ceil_div(block.rows, kRowGroup);
  for (int64_t g = 0; g < groups; g += kGroupsAtOnce) {
    attend_groups(block, scratch, first, count, keys, values, g,
                  std::min(g + kGroupsAtOnce, groups));
  }
}
