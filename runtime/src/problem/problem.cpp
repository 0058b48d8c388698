// runtime/src/problem/problem.cpp: the vocabulary of problems, and their text form
#include "problem/problem.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>

#include "base/nearest.hpp"

namespace attnrt::core {

namespace {

using namespace std::string_view_literals;

constexpr std::array device_choices{"cpu"sv, "cuda"sv, "rocm"sv};
constexpr std::array<int32_t, 3> device_types{ATTNRT_DEVICE_CPU, ATTNRT_DEVICE_CUDA,
                                              ATTNRT_DEVICE_ROCM};
constexpr std::array dtype_choices{"f32"sv, "f16"sv, "bf16"sv};
constexpr std::array mask_choices{"none"sv, "boolean"sv, "additive"sv};
constexpr std::array mask_dtype_choices{"bool"sv, "f32"sv, "f16"sv, "bf16"sv};
constexpr std::array align_choices{"bottom_right"sv, "top_left"sv};
constexpr std::array kv_dtype_choices{"off"sv, "f8_e4m3fn"sv, "f8_e4m3fnuz"sv, "i8"sv};
constexpr std::array kv_scale_choices{"none"sv, "tensor"sv, "head"sv, "token"sv};
constexpr std::array out_dtype_choices{"off"sv, "f32"sv};
constexpr std::array off{"off"sv};
constexpr std::array none{"none"sv};

struct NamedDtype {
  std::string_view name;
  attnrt_dtype dtype;
};
constexpr std::array<NamedDtype, 8> dtypes{{{"f32", {ATTNRT_DTYPE_FLOAT, 32, 1}},
                                            {"f16", {ATTNRT_DTYPE_FLOAT, 16, 1}},
                                            {"bf16", {ATTNRT_DTYPE_BFLOAT, 16, 1}},
                                            {"bool", {ATTNRT_DTYPE_BOOL, 8, 1}},
                                            {"int32", {ATTNRT_DTYPE_INT, 32, 1}},
                                            {"i8", {ATTNRT_DTYPE_INT, 8, 1}},
                                            {"f8_e4m3fn", {ATTNRT_DTYPE_FLOAT8_E4M3FN, 8, 1}},
                                            {"f8_e4m3fnuz", {ATTNRT_DTYPE_FLOAT8_E4M3FNUZ, 8, 1}}}};

constexpr Word size_word(std::string_view name, int64_t Problem::*field, bool bound = false) {
  return {name, field, WordKind::integer, bound, "", {}, 1};
}
constexpr Word flag_word(std::string_view name, int32_t Problem::*field) {
  return {name, field, WordKind::flag, false, name, {}};
}
constexpr Word name_word(std::string_view name, WordField field,
                         std::span<const std::string_view> choices,
                         std::span<const std::string_view> if_absent = {},
                         std::string_view feature = "") {
  return {name, field, WordKind::name, false, feature, choices, 0, INT64_MAX, false, if_absent};
}
constexpr Word window_word(std::string_view name, int64_t Problem::*field) {
  return {name, field, WordKind::integer, false, "window", {}, 0, INT64_MAX, true};
}

// All of ABI 1.0. A word, or a choice, that a later minor version adds says so in `since` or
// `choices_since`.
constexpr std::array<Word, 32> words{
    {name_word("device", &Problem::device_type, device_choices),
     name_word("arch", std::monostate{}, {}),
     name_word("dtype", &Problem::dtype, dtype_choices, dtype_choices),
     size_word("batch", &Problem::batch, true),
     size_word("heads_q", &Problem::heads_q),
     size_word("heads_kv", &Problem::heads_kv),
     size_word("seq_q", &Problem::seq_q, true),
     size_word("seq_kv", &Problem::seq_kv, true),
     size_word("head_dim", &Problem::head_dim),
     size_word("head_dim_v", &Problem::head_dim_v),
     {"scale", &Problem::scale, WordKind::real, false, "", {}},
     name_word("mask", &Problem::mask, mask_choices, mask_choices),
     name_word("mask_dtype", &Problem::mask_dtype, mask_dtype_choices, mask_dtype_choices),
     flag_word("causal", &Problem::causal),
     name_word("align", &Problem::align, align_choices, align_choices, "align_top_left"),
     window_word("window_left", &Problem::window_left),
     window_word("window_right", &Problem::window_right),
     {"softcap", &Problem::softcap, WordKind::real, false, "softcap", {}},
     flag_word("alibi", &Problem::alibi),
     flag_word("sinks", &Problem::sinks),
     flag_word("kv_lengths", &Problem::kv_lengths),
     flag_word("varlen", &Problem::varlen),
     {"page_size", &Problem::page_size, WordKind::integer, false, "paged", {}, 0, INT32_MAX},
     flag_word("lse", &Problem::lse),
     {"alignment_bytes", &Problem::alignment_bytes, WordKind::integer, false, "", {}, 1, 4096},
     flag_word("deterministic", &Problem::deterministic),
     name_word("kv_dtype", &Problem::kv_dtype, kv_dtype_choices, off),
     name_word("kv_scale", &Problem::kv_scale, kv_scale_choices, none),
     flag_word("v_in_k", &Problem::v_in_k),
     name_word("out_dtype", &Problem::out_dtype, out_dtype_choices, off),
     flag_word("diagonal_offset", &Problem::diagonal_offset),
     flag_word("batch_invariant", &Problem::batch_invariant)}};

constexpr std::array features{
    "gqa"sv,   "causal"sv,        "align_top_left"sv,  "window"sv,          "softcap"sv,
    "alibi"sv, "sinks"sv,         "kv_lengths"sv,      "varlen"sv,          "paged"sv,
    "lse"sv,   "deterministic"sv, "diagonal_offset"sv, "batch_invariant"sv, "v_in_k"sv};

// REQUIRES: the word is one of vocabulary().
size_t index_of(const Word& word) { return static_cast<size_t>(&word - words.data()); }
bool is(const Word& word, const WordField& field) { return word.field == field; }

attnrt_dtype dtype_named(std::string_view name) {
  const auto found =
      std::find_if(dtypes.begin(), dtypes.end(), [&](const auto& d) { return d.name == name; });
  return found != dtypes.end() ? found->dtype : attnrt_dtype{};
}

size_t place_of(std::string_view choice, std::span<const std::string_view> choices) {
  return static_cast<size_t>(std::find(choices.begin(), choices.end(), choice) - choices.begin());
}

attnrt_dtype default_mask_dtype(const Problem& problem) {
  return problem.mask == ATTNRT_MASK_ADDITIVE ? problem.dtype : dtype_named("bool");
}

tl::unexpected<Error> expected(std::string_view text, std::string_view what) {
  return fail(ATTNRT_INVALID_ARGUMENT, "found {}, expected {}", shown(text), what);
}

Result<Value> parse_integer(const Word& word, std::string_view text) {
  if (word.window && (text == "unbounded" || text == "-1")) return INT64_MAX;
  const std::string_view digits = text.starts_with('-') ? text.substr(1) : text;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error != std::errc::invalid_argument && end == text.data() + text.size();
  if (!whole || (digits.size() > 1 && digits.front() == '0')) {
    return expected(text, word.window ? "a whole number, or unbounded (-1)" : "a whole number");
  }
  if (error == std::errc::result_out_of_range && digits == text)
    return expected(text, fmt::format("at most {}", word.maximum));
  if (value < word.minimum || error == std::errc::result_out_of_range)
    return expected(
        text, fmt::format("at least {}{}", word.minimum, word.window ? ", or unbounded (-1)" : ""));
  if (value > word.maximum) return expected(text, fmt::format("at most {}", word.maximum));
  return value;
}

Result<Value> parse_real(std::string_view text) {
  const std::string_view digits = text.starts_with('-') ? text.substr(1) : text;
  const bool starts_right = !digits.empty() && (digits.front() == '.' ||
                                                (digits.front() >= '0' && digits.front() <= '9'));
  float value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (!starts_right || error != std::errc() || end != text.data() + text.size() ||
      !std::isfinite(value)) {
    return expected(text, "a finite number");
  }
  return static_cast<double>(value);
}

Result<Value> parse_name(const Word& word, std::string_view text) {
  if (word.choices.empty()) {  // arch
    const auto legal = [](char c) {
      return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
             "_:+-."sv.find(c) != std::string_view::npos;
    };
    if (!text.empty() && text.size() <= 64 && std::all_of(text.begin(), text.end(), legal))
      return std::string(text);
    return expected(text, "an architecture such as gfx1100 or sm_90");
  }
  if (place_of(text, word.choices) < word.choices.size()) return std::string(text);
  return expected(text, fmt::format("one of {}{}", fmt::join(word.choices, ", "),
                                    did_you_mean(text, word.choices)));
}

// Stores a value that parse_value returned.
void set_value(const Word& word, const Value& value, Problem& problem, std::string& arch) {
  const WordField& field = word.field;
  const auto* name = std::get_if<std::string>(&value);
  if (const auto* wide = std::get_if<int64_t Problem::*>(&field)) {
    const int64_t whole = std::get<int64_t>(value);
    problem.*(*wide) = word.window && whole == INT64_MAX ? -1 : whole;
  } else if (const auto* narrow = std::get_if<int32_t Problem::*>(&field)) {
    if (name == nullptr)
      problem.*(*narrow) = static_cast<int32_t>(std::get<int64_t>(value));
    else if (*narrow == &Problem::device_type)
      problem.device_type = *find_device(*name);
    else
      problem.*(*narrow) = static_cast<int32_t>(place_of(*name, word.choices));
  } else if (const auto* real = std::get_if<float Problem::*>(&field)) {
    problem.*(*real) = static_cast<float>(std::get<double>(value)) +
                       0.0F;  // no -0: equal problems have equal bytes
  } else if (const auto* type = std::get_if<attnrt_dtype Problem::*>(&field)) {
    problem.*(*type) = dtype_named(*name);
  } else {
    arch = *name;
  }
}

}  // namespace

bool same_problem(const Problem& a, const Problem& b) {
  return std::memcmp(&a, &b, sizeof a) == 0;  // NOLINT(bugprone-suspicious-memory-comparison)
}

std::span<const Word> vocabulary() { return words; }

const Word* find_word(std::string_view name) {
  const auto found =
      std::find_if(words.begin(), words.end(), [&](const Word& word) { return word.name == name; });
  return found != words.end() ? &*found : nullptr;
}

Problem default_problem() {
  Problem problem = ATTNRT_PROBLEM_INIT;
  problem.head_dim = 1;
  return problem;
}

Value value_of(const Word& word, const Problem& problem, std::string_view arch) {
  const WordField& field = word.field;
  if (const auto* wide = std::get_if<int64_t Problem::*>(&field)) {
    const int64_t value = problem.*(*wide);
    if (word.window) return value < 0 ? INT64_MAX : value;
    return value == 0 && *wide == &Problem::head_dim_v ? problem.head_dim : value;
  }
  if (const auto* narrow = std::get_if<int32_t Problem::*>(&field)) {
    const int32_t value = problem.*(*narrow);
    if (word.kind != WordKind::name) return int64_t{value};
    if (*narrow == &Problem::device_type) return device_name(value);
    const auto place = static_cast<size_t>(value);
    return value >= 0 && place < word.choices.size() ? std::string(word.choices[place])
                                                     : std::to_string(value);
  }
  if (const auto* real = std::get_if<float Problem::*>(&field)) {
    float value = problem.*(*real);
    const bool usual = *real == &Problem::scale && value == 0 && problem.head_dim > 0;
    if (usual) value = static_cast<float>(1 / std::sqrt(static_cast<double>(problem.head_dim)));
    return static_cast<double>(value);
  }
  if (const auto* type = std::get_if<attnrt_dtype Problem::*>(&field))
    return is_off(problem.*(*type)) ? "off" : dtype_name(problem.*(*type));
  return std::string(arch);
}

std::string to_text(const Value& value) {
  if (const auto* whole = std::get_if<int64_t>(&value))
    return *whole == INT64_MAX ? "unbounded" : std::to_string(*whole);
  if (const auto* real = std::get_if<double>(&value))
    return fmt::format("{}", static_cast<float>(*real));
  return std::get<std::string>(value);
}

std::string to_text(const Word& word, const Value& value) {
  const auto* whole = std::get_if<int64_t>(&value);
  if (word.kind == WordKind::flag && whole != nullptr) return *whole != 0 ? "true" : "false";
  return to_text(value);
}

Result<Value> parse_value(const Word& word, std::string_view text) {
  switch (word.kind) {
    case WordKind::integer: return parse_integer(word, text);
    case WordKind::real: return parse_real(text);
    case WordKind::name: return parse_name(word, text);
    case WordKind::flag: break;
  }
  if (text == "true" || text == "false") return int64_t{text == "true"};
  return expected(text, "true or false");
}

Result<void> set_word(const Word& word, std::string_view text, Problem& problem,
                      std::string& arch) {
  const bool device = is(word, &Problem::device_type);
  const size_t colon = device ? text.find(':') : std::string_view::npos;
  Result<Value> id = int64_t{0};
  auto value = parse_value(word, text.substr(0, colon));
  if (value && colon != std::string_view::npos) {
    const Word number{"device_id", &Problem::device_id, WordKind::integer, false, "", {}, 0,
                      INT32_MAX};
    id = parse_integer(number, text.substr(colon + 1));
  }
  for (const auto* read : {&value, &id}) {
    if (!*read) return fail(ATTNRT_INVALID_ARGUMENT, "{}: {}", word.name, read->error().message);
  }
  set_value(word, *value, problem, arch);
  if (device) problem.device_id = static_cast<int32_t>(std::get<int64_t>(*id));
  return {};
}

Result<void> parse_problem(std::string_view text, Problem& problem, std::string& arch) {
  constexpr std::string_view space = " \t\r\n";
  std::array<bool, words.size()> named{};
  Problem result = problem;
  std::string result_arch = arch;
  for (;;) {
    text.remove_prefix(std::min(text.find_first_not_of(space), text.size()));
    if (text.empty()) break;
    const std::string_view piece = text.substr(0, text.find_first_of(space));
    text.remove_prefix(piece.size());
    const size_t equals = piece.find('=');
    const std::string_view name = piece.substr(0, equals);
    const Word* word = find_word(name);
    if (word == nullptr) {
      std::array<std::string_view, words.size()> names;
      std::transform(words.begin(), words.end(), names.begin(),
                     [](const Word& w) { return w.name; });
      return fail(ATTNRT_INVALID_ARGUMENT, "{}: unknown word{}", shown(name),
                  expected_one_of(name, names));
    }
    if (equals == std::string_view::npos)
      return fail(ATTNRT_INVALID_ARGUMENT, "{0}: found no value, expected {0}=VALUE", name);
    if (std::exchange(named.at(index_of(*word)), true))
      return fail(ATTNRT_INVALID_ARGUMENT, "{}: found twice, expected once", name);
    if (auto set = set_word(*word, piece.substr(equals + 1), result, result_arch); !set) return set;
  }
  const auto is_named = [&](std::string_view name) { return named.at(index_of(*find_word(name))); };
  if (is_named("mask") && !is_named("mask_dtype")) result.mask_dtype = default_mask_dtype(result);
  problem = result;
  arch = std::move(result_arch);
  return {};
}

std::string describe(const Problem& problem, std::string_view arch) {
  const Problem usual = default_problem();
  std::string text;
  for (const Word& word : words) {
    const bool dimension =
        word.kind == WordKind::integer && word.minimum == 1 && word.maximum == INT64_MAX;
    const bool always = dimension || is(word, &Problem::device_type) || is(word, &Problem::dtype);
    Value value = value_of(word, problem, arch);
    bool differs = value != value_of(word, usual, "");
    if (is(word, &Problem::scale))
      value = static_cast<double>(problem.scale), differs = problem.scale != 0;
    if (is(word, &Problem::mask_dtype))
      differs = !same_dtype(problem.mask_dtype, default_mask_dtype(problem));
    if (!always && !differs) continue;
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", word.name, to_text(word, value));
    if (is(word, &Problem::device_type) && problem.device_id != 0)
      text += fmt::format(":{}", problem.device_id);
  }
  return text;
}

uint32_t feature_bits(const Problem& p) {
  const bool window = p.window_left >= 0 || p.window_right >= 0;
  const bool diagonal = p.causal != 0 || window || p.alibi != 0;
  const bool used[] = {p.heads_q != p.heads_kv,
                       p.causal != 0,
                       p.align == ATTNRT_ALIGN_TOP_LEFT && diagonal,
                       window,
                       p.softcap != 0,
                       p.alibi != 0,
                       p.sinks != 0,
                       p.kv_lengths != 0,
                       p.varlen != 0,
                       p.page_size != 0,
                       p.lse != 0,
                       p.deterministic != 0,
                       p.diagonal_offset != 0,
                       p.batch_invariant != 0,
                       p.v_in_k != 0};
  static_assert(std::size(used) == features.size());
  uint32_t bits = 0;
  for (size_t i = 0; i < features.size(); ++i) bits |= used[i] ? 1U << i : 0U;
  return bits;
}

std::vector<std::string_view> features_of(const Problem& problem) {
  const uint32_t bits = feature_bits(problem);
  std::vector<std::string_view> result;
  for (size_t i = 0; i < features.size(); ++i) {
    if ((bits >> i & 1U) != 0) result.push_back(features.at(i));
  }
  return result;
}

std::span<const std::string_view> all_features() { return features; }

std::optional<int32_t> find_device(std::string_view name) {
  const size_t place = place_of(name, device_choices);
  return place < device_types.size() ? std::optional(device_types.at(place)) : std::nullopt;
}

const char* device_name(int32_t device_type) {
  static constexpr std::array others{
      "device 0",  "cpu",       "cuda",      "device 3",  "device 4",  "device 5",
      "device 6",  "device 7",  "device 8",  "device 9",  "rocm",      "device 11",
      "device 12", "device 13", "device 14", "device 15", "device 16", "device 17"};
  const auto place = static_cast<size_t>(device_type);
  return device_type >= 0 && place < others.size() ? others[place] : "unknown device";
}

std::string dtype_name(attnrt_dtype type) {
  for (const NamedDtype& known : dtypes) {
    if (same_dtype(known.dtype, type)) return std::string(known.name);
  }
  // Types that no Problem can have, by their usual names.
  constexpr std::array<std::string_view, 7> kinds{"int", "uint",    "f",   "opaque",
                                                  "bf",  "complex", "bool"};  // by DLPack's codes
  const std::string name = type.code < kinds.size()
                               ? fmt::format("{}{}", kinds.at(type.code), type.bits)
                               : fmt::format("code {} bits {}", type.code, type.bits);
  return type.lanes == 1 ? name : fmt::format("{} of {} lanes", name, type.lanes);
}

}  // namespace attnrt::core
