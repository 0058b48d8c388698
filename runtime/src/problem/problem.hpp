// runtime/src/problem/problem.hpp: the vocabulary of problems, and their text form
#pragma once

#include <attnrt/plugin.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.hpp"

namespace attnrt::core {

using Problem = attnrt_problem;

// The value of a word in one problem, in the form that constraints compare: a whole number (a flag
// is 0 or 1, an unbounded window is INT64_MAX), a real (scale, softcap) or a name (device, arch,
// dtype, mask, mask_dtype, align).
using Value = std::variant<int64_t, double, std::string>;

enum class WordKind { integer, real, flag, name };

// The field of Problem that holds a word's value; monostate for arch, which no Problem holds.
using WordField = std::variant<std::monostate, int64_t Problem::*, int32_t Problem::*,
                               float Problem::*, attnrt_dtype Problem::*>;

// One word of the vocabulary. vocabulary() lists the words in the order of the documentation:
// device arch dtype batch ...
struct Word {
  std::string_view name;
  WordField field;
  WordKind kind;
  bool bound;  // batch, seq_q, seq_kv: upper bounds, for which manifests may give only a max
  std::string_view feature;  // the feature that any value but the default uses; "": none
  // The legal names, if they are fixed: cpu cuda rocm; f32 f16 bf16; ...
  std::span<const std::string_view> choices;
  int64_t minimum = 0;  // the least and the largest legal value of an integer
  int64_t maximum = INT64_MAX;
  bool window = false;  // the value may be `unbounded`
  // What a manifest that does not name the word means: these of its choices. Empty: any value.
  std::span<const std::string_view> if_absent = {};
  // The minor version of the ABI that the word came with, and for each of its choices the one that
  // the choice came with (empty: the word's). See since.hpp.
  int32_t since = 0;
  std::span<const int32_t> choices_since = {};
};

std::span<const Word> vocabulary();
const Word* find_word(std::string_view name);  // nullptr: there is no such word

// Returns ATTNRT_PROBLEM_INIT with all dimensions 1; head_dim_v is 0, which means head_dim.
Problem default_problem();

// Returns the value of a word in a problem. Where scale or head_dim_v is 0, it is the value that
// this stands for.
Value value_of(const Word& word, const Problem& problem, std::string_view arch);
std::string to_text(const Value& value);
std::string to_text(const Word& word, const Value& value);  // flags as true and false

// Parses one value of the word. Reals are rounded to float, as in the Problem. Errors:
// INVALID_ARGUMENT with what was found, what was expected and the nearest choice; the caller says
// where.
Result<Value> parse_value(const Word& word, std::string_view text);

// Sets one word from its text. device may carry a number: rocm:1 is the rocm device with device_id
// 1. Errors: INVALID_ARGUMENT that names the word, what was found and what was expected.
Result<void> set_word(const Word& word, std::string_view text, Problem& problem, std::string& arch);

// Sets the words that a text names: "dtype=f16 heads_q=9 ...". If it names mask but not mask_dtype,
// mask_dtype becomes bool for a boolean mask and dtype for an additive one. Errors:
// INVALID_ARGUMENT for an unknown word (with the nearest known one) and for a word that is named
// twice; problem and arch then stay as they were.
Result<void> parse_problem(std::string_view words, Problem& problem, std::string& arch);

// Writes a problem in words: always device, dtype and the seven dimensions, and each other word
// whose value is not the default. parse_problem of this text, from default_problem(), gives the
// problem again.
std::string describe(const Problem& problem, std::string_view arch = "");

// Returns the features that a problem uses, of gqa causal align_top_left window softcap alibi sinks
// kv_lengths varlen paged lse deterministic diagonal_offset batch_invariant v_in_k. align_top_left
// counts only if something uses the diagonal: causal, a window, alibi.
std::vector<std::string_view> features_of(const Problem& problem);
std::span<const std::string_view> all_features();
uint32_t feature_bits(const Problem& problem);  // bit i is set if it uses all_features()[i]

// Reads a caller's struct (see base/structs.hpp) and checks it. Fills in defaults, so that equal
// problems have equal bytes: where they are 0, head_dim_v becomes head_dim and alignment_bytes 16;
// without a mask, mask_dtype becomes bool. kv_dtype and out_dtype become off where they equal
// dtype. batch_invariant sets deterministic, which it implies. Then it checks that
//   - each dimension is at least 1, and their products fit into int64
//   - heads_q is a multiple of heads_kv
//   - enumerators are known, flags are 0 or 1, and windows are at least -1
//   - scale and softcap are finite, and softcap is at least 0
//   - alignment_bytes is a power of two up to 4096
//   - varlen comes without a mask, page_size with kv_lengths, kv_scale with kv_dtype, and
//     mask_dtype fits mask
//   - with v_in_k, head_dim_v is at most head_dim
// Errors: INVALID_ARGUMENT.
Result<Problem> check_problem(const attnrt_problem* problem);

// Whether two problems have equal bytes. Checked problems that are equal have: check_problem leaves
// nothing open, and the struct has no padding.
bool same_problem(const Problem& a, const Problem& b);

// Returns "cpu", "cuda" or "rocm"; "device 7" for DLPack's other types, "unknown device" for no
// type of DLPack.
const char* device_name(int32_t device_type);
// Returns the type that is named cpu, cuda or rocm; nullopt for any other name.
std::optional<int32_t> find_device(std::string_view name);
// Returns f32 f16 bf16 bool int32 i8 f8_e4m3fn f64 ..., or "code 9 bits 4".
std::string dtype_name(attnrt_dtype dtype);
// Inline, since each run compares the dtypes of all its tensors.
constexpr bool same_dtype(attnrt_dtype a, attnrt_dtype b) {
  return a.code == b.code && a.bits == b.bits && a.lanes == b.lanes;
}
// {0, 0, 0}: a kv_dtype or out_dtype that does not differ from dtype.
constexpr bool is_off(attnrt_dtype dtype) { return same_dtype(dtype, attnrt_dtype{}); }
constexpr int64_t dtype_bytes(attnrt_dtype dtype) {
  return (int64_t{dtype.bits} * dtype.lanes + 7) / 8;
}

}  // namespace attnrt::core
