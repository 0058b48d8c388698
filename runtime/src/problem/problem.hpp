// runtime/src/problem/problem.hpp: the vocabulary; words ("head_dim=64 causal=true") into a Problem and back
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

// What a word says of one problem, in the form that constraints compare: whole numbers (flags are 0 and 1, an unbounded
// window is INT64_MAX), reals (scale, softcap), or words (device, arch, dtype, mask, mask_dtype, align).
using Value = std::variant<int64_t, double, std::string>;

enum class WordKind { integer, real, flag, name };

// One word of the vocabulary, in the order of the documentation: device arch dtype batch ... deterministic.
struct Word {
  std::string_view name;
  WordKind kind;
  bool bound;                // batch, seq_q, seq_kv: an upper bound, manifests may give only a max
  std::string_view feature;  // the feature that a value other than the default uses, or ""
  std::span<const std::string_view>
      choices;          // of a name, where they are fixed: cpu cuda rocm; f32 f16 bf16; ...
  int64_t minimum = 0;  // of an integer: the least and the largest legal value
  int64_t maximum = INT64_MAX;
  bool window = false;  // takes `unbounded`
};

std::span<const Word> vocabulary();
const Word* find_word(std::string_view name);  // nullptr: not a word

Problem
default_problem();  // ATTNRT_PROBLEM_INIT with dimensions 1 (head_dim_v 0 means head_dim until validate)

// scale and head_dim_v, where they are 0, are what they default to.
Value value_of(const Word& word, const Problem& problem, std::string_view arch);
std::string to_text(const Value& value);
std::string to_text(const Word& word, const Value& value);  // flags as true and false

// One value of the word; the error says what was found and what was expected, not where. A name outside of the choices
// is an error with the nearest choice. Reals are kept in float's precision, as in the Problem.
Result<Value> parse_value(const Word& word, std::string_view text);

// Sets one word from its text; the error names the word, what was found, what was expected. Real numbers are finite.
// device takes a number too: rocm:1 is the rocm device with device_id 1.
Result<void> set_word(const Word& word, std::string_view text, Problem& problem, std::string& arch);

// "dtype=f16 heads_q=9 ..."; an unknown word is an error that names the nearest known one, a repeated word an error.
// Where mask is named and mask_dtype is not, mask_dtype is bool for a boolean mask and dtype for an additive one.
Result<void> parse_problem(std::string_view words, Problem& problem, std::string& arch);

// The canonical words: device, dtype and the seven dimensions always, the rest where it is not the default. Parsed into
// default_problem(), they give the problem again.
std::string describe(const Problem& problem, std::string_view arch = "");

// gqa causal align_top_left window softcap alibi sinks kv_lengths varlen paged lse deterministic: those that it uses
// (align_top_left only where something uses the diagonal: causal, a window, alibi).
std::vector<std::string_view> features_of(const Problem& problem);
std::span<const std::string_view> all_features();
uint32_t feature_bits(const Problem& problem);  // bit i: it uses all_features()[i]

// A caller's struct into ours: respects struct_size (fields that it does not hold are as in ATTNRT_PROBLEM_INIT; the
// seven dimensions must be there), refuses nonzero bytes past what this runtime knows (a newer application's field),
// sets head_dim_v = head_dim and alignment_bytes = 16 where they are 0 and mask_dtype = bool where there is no mask, so
// that equal problems have equal bytes. Then validates: dimensions at least 1 and products that do not overflow int64,
// heads_q a multiple of heads_kv, known enumerators, flags 0 or 1, windows >= -1, finite scale and softcap >= 0,
// alignment_bytes a power of two (1..4096), varlen without a mask, page_size with kv_lengths, mask_dtype that fits
// mask. A bound of 0 for batch, seq_q, seq_kv is an error here. Errors: INVALID_ARGUMENT.
Result<Problem> check_problem(const attnrt_problem* problem);

const char* device_name(int32_t device_type);  // cpu cuda rocm, or "device 7" for others
std::optional<int32_t> find_device(
    std::string_view name);                  // of cpu cuda rocm; nullopt: not a device
std::string dtype_name(attnrt_dtype dtype);  // f32 f16 bf16 bool int32 f64 ..., or "code 9 bits 4"
bool same_dtype(attnrt_dtype a, attnrt_dtype b);
int64_t dtype_bytes(attnrt_dtype dtype);

}  // namespace attnrt::core
