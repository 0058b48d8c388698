// kernels/cpu/simd/prefill.inl: one block of query rows into its rows of out and lse, tile of keys by tile of keys
// (included by targets.cpp, once per target)

// Divides by the denominator and writes out and lse. `unit` gives the weight of a row's maximum.
template <class Unit>
inline void finish_rows(const Block& block, const Scratch& scratch, const Unit& unit) {
  const Run& run = *block.run;
  const Problem& p = *run.problem;
  const Args& args = *run.args;
  const Floats d;
  for (int64_t r = 0; r < block.rows; ++r) {
    SoftmaxState state{scratch.max[r],
                       hn::GetLane(hn::SumOfLanes(d, hn::Load(d, scratch.sum + r * kSumLanes)))};
    float* row = scratch.out + r * scratch.v_stride;
    const Vector factor = hn::Set(d, 1.0f / state.sum);
    for (int64_t x = 0; x < scratch.v_stride; x += kLanes) {
      const Vector o = hn::Load(d, row + x);
      hn::Store(state.sum == 0 ? hn::Zero(d) : hn::Mul(o, factor), d, row + x);
    }
    const int64_t i = block.query(r);
    const int64_t offset = query_row(p, args.out, block.sequence, block.batch, i, block.head(r));
    store_row(p.dtype, row, p.head_dim_v,
              static_cast<char*>(args.out.data) + offset * element_bytes(p.dtype));
    if (p.lse) {
      if (run.plain) state.max *= run.scale;  // of a product of q and k
      state.sum /= unit(r);
      const int64_t at = lse_element(p, args.lse, block.sequence, block.batch, i, block.head(r));
      static_cast<float*>(args.lse.data)[at] = log_sum_exp(state);
    }
  }
}

inline void finish_rows(const Block& block, const Scratch& scratch) {
  finish_rows(block, scratch, [](int64_t) { return 1.0f; });
}

void pack(const Run& run, int64_t index, int32_t worker) {
  pack_shared(run, index, worker, pack_float_tile);
}

void attend(const Run& run, int64_t index, int32_t worker) {
  const Block block = block_at(run, index);
  if (block.rows <= 0 || is_decode(block.sequence.q_length, run.group)) return;
  const Scratch scratch = scratch_of(run, worker);
  start_scratch(scratch);
  pack_queries(block, scratch);
  const KeyRange seen = start_rows(block, scratch, run.problem->sinks);
  for (int64_t first = seen.begin / kTileKeys * kTileKeys; first < seen.end; first += kTileKeys) {
    attend_tile(block, scratch, first);
  }
  finish_rows(block, scratch);
}
