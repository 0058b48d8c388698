// runtime/src/base/structs.cpp: reads the public structs that applications of any version hand over
#include "base/structs.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>

namespace attnrt::core {
namespace {

struct Field {
  size_t offset, end;  // bytes from the start of the struct
};

// What the reader knows of one struct.
struct StructTable {
  const char* name;         // as messages call it
  const char* how_to_fill;  // the end of the message about a wrong struct_size
  size_t least;             // bytes that every caller must give; the fields below follow them
  std::span<const Field> fields;
};

constexpr size_t kLongest = 4096;  // bytes; a larger struct_size is taken for garbage

#define ATTNRT_FIELD(type, field) \
  Field { offsetof(type, field), offsetof(type, field) + sizeof(type::field) }

constexpr Field kProblemFields[] = {
    ATTNRT_FIELD(attnrt_problem, scale),           ATTNRT_FIELD(attnrt_problem, mask),
    ATTNRT_FIELD(attnrt_problem, mask_dtype),      ATTNRT_FIELD(attnrt_problem, causal),
    ATTNRT_FIELD(attnrt_problem, align),           ATTNRT_FIELD(attnrt_problem, softcap),
    ATTNRT_FIELD(attnrt_problem, window_left),     ATTNRT_FIELD(attnrt_problem, window_right),
    ATTNRT_FIELD(attnrt_problem, alibi),           ATTNRT_FIELD(attnrt_problem, sinks),
    ATTNRT_FIELD(attnrt_problem, kv_lengths),      ATTNRT_FIELD(attnrt_problem, varlen),
    ATTNRT_FIELD(attnrt_problem, page_size),       ATTNRT_FIELD(attnrt_problem, lse),
    ATTNRT_FIELD(attnrt_problem, alignment_bytes), ATTNRT_FIELD(attnrt_problem, deterministic),
    ATTNRT_FIELD(attnrt_problem, kv_dtype),        ATTNRT_FIELD(attnrt_problem, kv_scale),
    ATTNRT_FIELD(attnrt_problem, v_in_k),          ATTNRT_FIELD(attnrt_problem, out_dtype),
    ATTNRT_FIELD(attnrt_problem, diagonal_offset), ATTNRT_FIELD(attnrt_problem, batch_invariant)};
constexpr StructTable kProblem{"problem", "start from ATTNRT_PROBLEM_INIT",
                               offsetof(attnrt_problem, scale), kProblemFields};

#define ATTNRT_TENSOR_FIELD(name) ATTNRT_FIELD(attnrt_args, name),
constexpr Field kArgsFields[] = {
    ATTNRT_TENSORS(ATTNRT_TENSOR_FIELD)  //
    ATTNRT_FIELD(attnrt_args, workspace),
    ATTNRT_FIELD(attnrt_args, workspace_bytes), ATTNRT_FIELD(attnrt_args, stream),
    ATTNRT_FIELD(attnrt_args, schedule), ATTNRT_FIELD(attnrt_args, schedule_bytes)};
#undef ATTNRT_TENSOR_FIELD
constexpr StructTable kArgs{"args", "set it to sizeof(attnrt_args)", offsetof(attnrt_args, q),
                            kArgsFields};

constexpr Field kCallFields[] = {ATTNRT_FIELD(attnrt_call, backend),
                                 ATTNRT_FIELD(attnrt_call, stream)};
constexpr StructTable kCall{"call", "start from ATTNRT_CALL_INIT", offsetof(attnrt_call, backend),
                            kCallFields};

constexpr Field kOptionsFields[] = {ATTNRT_FIELD(attnrt_runtime_options, policy_path),
                                    ATTNRT_FIELD(attnrt_runtime_options, policy_text),
                                    ATTNRT_FIELD(attnrt_runtime_options, plugin_path),
                                    ATTNRT_FIELD(attnrt_runtime_options, log),
                                    ATTNRT_FIELD(attnrt_runtime_options, log_self),
                                    ATTNRT_FIELD(attnrt_runtime_options, parallel_for),
                                    ATTNRT_FIELD(attnrt_runtime_options, parallel_self),
                                    ATTNRT_FIELD(attnrt_runtime_options, allocate),
                                    ATTNRT_FIELD(attnrt_runtime_options, free),
                                    ATTNRT_FIELD(attnrt_runtime_options, allocator_self)};
constexpr StructTable kOptions{"options", "start from ATTNRT_RUNTIME_OPTIONS_INIT",
                               offsetof(attnrt_runtime_options, policy_path), kOptionsFields};
#undef ATTNRT_FIELD

// Whether a table lists every field: each begins where the one before it ends (no public struct has
// padding), and the last one ends with the struct.
constexpr bool is_complete(const StructTable& table, size_t struct_bytes) {
  size_t end = table.least;
  for (const Field& field : table.fields) {
    if (field.offset != end) return false;
    end = field.end;
  }
  return end == struct_bytes;
}
static_assert(is_complete(kProblem, sizeof(attnrt_problem)),
              "a field of attnrt_problem is missing");
static_assert(is_complete(kArgs, sizeof(attnrt_args)), "a field of attnrt_args is missing");
static_assert(is_complete(kCall, sizeof(attnrt_call)), "a field of attnrt_call is missing");
static_assert(is_complete(kOptions, sizeof(attnrt_runtime_options)),
              "a field of attnrt_runtime_options is missing");

template <class Struct>
Result<void> read(const StructTable& table, const Struct& given, Struct* ours) {
  const auto size = static_cast<size_t>(std::max(given.struct_size, 0));
  if (size < table.least || size > kLongest) {
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: struct_size is {}, expected {} to {}; {}", table.name,
                given.struct_size, table.least, kLongest, table.how_to_fill);
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(&given);
  for (size_t i = sizeof(Struct); i < size; ++i) {
    if (bytes[i] == 0) continue;
    return fail(ATTNRT_INVALID_ARGUMENT,
                "{}: byte {} of {} is not zero, but this runtime knows only the first {}; leave "
                "newer fields at zero",
                table.name, i, size, sizeof(Struct));
  }
  size_t known = table.least;
  for (const Field& field : table.fields) known = field.end <= size ? field.end : known;
  std::memcpy(ours, &given, known);
  ours->struct_size = static_cast<int32_t>(sizeof(Struct));
  return {};
}

}  // namespace

Result<void> read_struct(const attnrt_problem& given, attnrt_problem* ours) {
  return read(kProblem, given, ours);
}
Result<void> read_struct(const attnrt_args& given, attnrt_args* ours) {
  return read(kArgs, given, ours);
}
Result<void> read_struct(const attnrt_call& given, attnrt_call* ours) {
  return read(kCall, given, ours);
}
Result<void> read_struct(const attnrt_runtime_options& given, attnrt_runtime_options* ours) {
  return read(kOptions, given, ours);
}

}  // namespace attnrt::core
