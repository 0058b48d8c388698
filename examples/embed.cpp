// examples/embed.cpp: attention in C++: open, explain, plan and run, then once more in one call
//
//   embed_cpp BACKEND      exit status 0 if BACKEND was chosen and the result is right
#include <attnrt/attnrt.hpp>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <vector>

namespace {

constexpr int64_t seq = 4, heads = 2, dim = 8;

int fail(const attnrt::Error& error) {
  std::cerr << error.message << '\n';
  return 1;
}

// All queries are zero, so all visible keys weigh the same: causal row i is the mean of the values
// 0 to i.
bool is_right(const std::vector<float>& out, const std::vector<float>& v) {
  constexpr int64_t row = heads * dim;
  for (int64_t i = 0; i < seq; ++i) {
    for (int64_t x = 0; x < row; ++x) {
      float mean = 0;
      for (int64_t j = 0; j <= i; ++j) mean += v[j * row + x] / static_cast<float>(i + 1);
      if (!(std::abs(out[i * row + x] - mean) <= 1e-5F)) return false;
    }
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  std::vector<float> q(seq * heads * dim, 0.0F), k(q.size(), 1.0F), v(q.size()), out(q.size()),
      again(q.size());
  for (size_t x = 0; x < v.size(); ++x) v[x] = static_cast<float>(x) / 64.0F;

  auto runtime = attnrt::Runtime::open();
  if (!runtime) return fail(runtime.error());

  // batch is 1 and dtype f32 where nothing else is said.
  const attnrt::Problem problem{.heads_q = heads,
                                .heads_kv = heads,
                                .seq_q = seq,
                                .seq_kv = seq,
                                .head_dim = dim,
                                .causal = true};
  const auto why = runtime->explain(problem);
  if (!why) return fail(why.error());
  std::cout << *why << '\n';

  // A plan is made once and can run many times.
  auto plan = runtime->plan(problem);
  if (!plan) return fail(plan.error());
  attnrt::Args args{.q = attnrt::tensor(q.data(), {1, seq, heads, dim}),
                    .k = attnrt::tensor(k.data(), {1, seq, heads, dim}),
                    .v = attnrt::tensor(v.data(), {1, seq, heads, dim}),
                    .out = attnrt::tensor(out.data(), {1, seq, heads, dim})};
  if (const auto done = plan->run(args); !done) return fail(done.error());
  std::cout << plan->backend() << ' ' << plan->version() << " ran " << plan->kernel() << '\n';

  // The one-shot call reads dtype and shapes off the tensors, and finds or makes its own plan.
  args.out = attnrt::tensor(again.data(), {1, seq, heads, dim});
  if (const auto done = runtime->attention({.causal = true}, args); !done)
    return fail(done.error());

  const bool right =
      is_right(out, v) && is_right(again, v) && std::string(argv[1]) == plan->backend();
  std::cout << (right ? "right" : "wrong") << '\n';
  return right ? 0 : 1;
}
