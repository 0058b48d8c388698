// tests/kernels/reference/tiny.hpp: problems so small that their answers are computed by hand
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/reference/attention.hpp"

namespace kernels::test {

// One head, head_dim 1, scale 1: the score of query i and key j is q[i] * k[j].
struct Tiny {
  Problem problem;
  Args args;
  std::vector<float> q, k, v;
  std::vector<uint8_t> mask;
  std::vector<float> bias, slopes, sinks;
  std::vector<double> out, lse;

  Tiny(std::vector<float> q_, std::vector<float> k_, std::vector<float> v_) : q(q_), k(k_), v(v_) {
    problem.scale = 1;
    problem.seq_q = size(q);
    problem.seq_kv = size(k);
    args.q = rows(q);
    args.k = rows(k);
    args.v = rows(v);
  }
  static int64_t size(const std::vector<float>& values) {
    return static_cast<int64_t>(values.size());
  }
  static Tensor rows(std::vector<float>& x) {
    return {x.data(), DType::f32, 4, {1, size(x), 1, 1}, {size(x), 1, 1, 1}};
  }
  Tensor mask_tensor(void* data, DType dtype) const {
    return {data, dtype, 4, {1, 1, size(q), size(k)}, {0, 0, size(k), 1}};
  }
  void run() {
    out.assign(q.size(), -99);
    lse.assign(q.size(), -99);
    reference::attention(problem, args, out.data(), lse.data());
  }
};

}  // namespace kernels::test
