// runtime/src/problem/check_problem.cpp: reads a caller's problem and checks that it is legal
#include <algorithm>
#include <cmath>

#include "base/structs.hpp"
#include "problem/problem.hpp"

namespace attnrt::core {

namespace {

bool overflows(std::initializer_list<int64_t> factors) {
  int64_t product = 16;  // bytes; no element is larger
  return std::any_of(factors.begin(), factors.end(), [&](int64_t factor) {
    return __builtin_mul_overflow(product, factor, &product);
  });
}

template <class... Arguments>
tl::unexpected<Error> bad(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  return fail(ATTNRT_INVALID_ARGUMENT, "problem: {}",
              fmt::format(format, std::forward<Arguments>(arguments)...));
}

// Checks each word by itself: integers in their range, flags 0 or 1, names among their choices,
// reals finite.
Result<void> check_words(const Problem& problem) {
  for (const Word& word : vocabulary()) {
    const Value value = value_of(word, problem, "");
    if (const auto* name = std::get_if<std::string>(&value);
        name != nullptr && !word.choices.empty()) {
      if (std::find(word.choices.begin(), word.choices.end(), *name) != word.choices.end())
        continue;
      const std::string found =
          word.name == "device" ? *name : fmt::format("{} {}", word.name, *name);
      return bad("{} is not in {{{}}}", found, fmt::join(word.choices, ", "));
    }
    if (word.kind != WordKind::integer && word.kind != WordKind::flag) continue;
    const int64_t whole = std::get<int64_t>(value);
    const int64_t maximum = word.kind == WordKind::flag ? 1 : word.maximum;
    if (whole == 0 && word.minimum == 1)
      return bad("{} is 0, or was not given; expected at least 1", word.name);
    if (whole < word.minimum) return bad("{} {} is below {}", word.name, whole, word.minimum);
    if (whole > maximum) return bad("{} {} is above {}", word.name, whole, maximum);
  }
  for (const auto& [name, window] :
       {std::pair{"window_left", problem.window_left}, {"window_right", problem.window_right}}) {
    if (window < -1)
      return bad("{}: found {}, expected at least 0, or unbounded (-1)", name, window);
  }
  if (!std::isfinite(problem.scale)) return bad("scale {} is not finite", problem.scale);
  if (!std::isfinite(problem.softcap)) return bad("softcap {} is not finite", problem.softcap);
  if (problem.softcap < 0) return bad("softcap {} is below 0", problem.softcap);
  if (problem.device_id < 0) return bad("device_id {} is below 0", problem.device_id);
  return {};
}

// Checks the words that depend on each other.
Result<void> check_together(const Problem& p) {
  if (p.heads_q % p.heads_kv != 0)
    return bad("heads_q {} is not a multiple of heads_kv {}", p.heads_q, p.heads_kv);
  if (overflows({p.batch, p.seq_q, p.heads_q, p.head_dim}) ||
      overflows({p.batch, p.seq_q, p.heads_q, p.head_dim_v}) ||
      overflows({p.batch, p.seq_kv, p.heads_kv, p.head_dim}) ||
      overflows({p.batch, p.seq_kv, p.heads_kv, p.head_dim_v}) ||
      overflows({p.batch, p.heads_q, p.seq_q, p.seq_kv})) {
    return bad("the dimensions multiply to more than 64 bits hold");
  }
  if ((p.alignment_bytes & (p.alignment_bytes - 1)) != 0) {
    return bad("alignment_bytes {} is not a power of two", p.alignment_bytes);
  }
  if (p.varlen != 0 && p.mask != ATTNRT_MASK_NONE) {
    return bad("varlen takes no mask, found mask {}",
               p.mask == ATTNRT_MASK_BOOLEAN ? "boolean" : "additive");
  }
  if (p.page_size > 0 && p.kv_lengths == 0)
    return bad("page_size {} needs kv_lengths", p.page_size);
  if (p.kv_scale != ATTNRT_KV_SCALE_NONE && is_off(p.kv_dtype)) {
    return bad("kv_scale {} needs a kv_dtype", to_text(value_of(*find_word("kv_scale"), p, "")));
  }
  if (p.v_in_k != 0 && p.head_dim_v > p.head_dim) {
    return bad("v_in_k needs a head_dim_v of at most head_dim {}, found {}", p.head_dim,
               p.head_dim_v);
  }
  constexpr attnrt_dtype boolean{ATTNRT_DTYPE_BOOL, 8, 1}, f32{ATTNRT_DTYPE_FLOAT, 32, 1};
  if (p.mask == ATTNRT_MASK_BOOLEAN && !same_dtype(p.mask_dtype, boolean)) {
    return bad("mask_dtype {} does not fit a boolean mask, expected bool",
               dtype_name(p.mask_dtype));
  }
  if (p.mask == ATTNRT_MASK_ADDITIVE && !same_dtype(p.mask_dtype, p.dtype) &&
      !same_dtype(p.mask_dtype, f32)) {
    return bad("mask_dtype {} does not fit an additive mask, expected {}", dtype_name(p.mask_dtype),
               same_dtype(p.dtype, f32) ? "f32" : dtype_name(p.dtype) + " or f32");
  }
  return {};
}

}  // namespace

Result<Problem> check_problem(const attnrt_problem* problem) {
  if (problem == nullptr) return bad("found NULL, expected a problem");
  Problem p = default_problem();
  if (const auto read = read_struct(*problem, &p); !read) return tl::unexpected(read.error());
  if (p.head_dim_v == 0) p.head_dim_v = p.head_dim;
  if (p.alignment_bytes == 0) p.alignment_bytes = 16;
  if (p.mask == ATTNRT_MASK_NONE) p.mask_dtype = {ATTNRT_DTYPE_BOOL, 8, 1};
  if (same_dtype(p.kv_dtype, p.dtype)) p.kv_dtype = {};
  if (same_dtype(p.out_dtype, p.dtype)) p.out_dtype = {};
  if (p.batch_invariant == 1) p.deterministic = 1;
  p.scale += 0.0F;  // -0 becomes 0, so that equal problems have equal bytes
  p.softcap += 0.0F;
  if (auto checked = check_words(p); !checked) return tl::unexpected(checked.error());
  if (auto checked = check_together(p); !checked) return tl::unexpected(checked.error());
  return p;
}

}  // namespace attnrt::core
