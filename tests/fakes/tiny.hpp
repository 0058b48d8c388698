// tests/fakes/tiny.hpp: the smallest attention whose result is obvious: one key, so out is v
#pragma once

#include <attnrt/plugin.h>

#include <array>

namespace attnrt::fakes {

struct Tiny {
  static constexpr int64_t kHeadDim = 4;
  alignas(64) std::array<float, kHeadDim> q{1, 2, 3, 4}, k{1, 0, 1, 0}, v{5, 6, 7, 8}, out{};
  alignas(64) std::array<char, 4096> workspace{};
  attnrt_problem problem = ATTNRT_PROBLEM_INIT;
  attnrt_args args{};

  Tiny() {
    problem.batch = problem.heads_q = problem.heads_kv = problem.seq_q = problem.seq_kv = 1;
    problem.head_dim = problem.head_dim_v = kHeadDim;
    args.struct_size = sizeof args;
    args.q = tensor(q.data());
    args.k = tensor(k.data());
    args.v = tensor(v.data());
    args.out = tensor(out.data());
  }
  Tiny(const Tiny&) = delete;
  Tiny& operator=(const Tiny&) = delete;

  static attnrt_tensor tensor(float* data) {
    return {data,
            {ATTNRT_DTYPE_FLOAT, 32, 1},
            4,
            {1, 1, 1, kHeadDim},
            {kHeadDim, kHeadDim, kHeadDim, 1}};
  }
  // For a direct call of a plugin's run. The runtime uses its own workspace.
  void lend_workspace() {
    args.workspace = workspace.data();
    args.workspace_bytes = workspace.size();
  }
  bool right() const { return out == v; }
};

}  // namespace attnrt::fakes
