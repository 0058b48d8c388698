// runtime/src/base/structs.hpp: reads the public structs that applications of any version hand over
//
// A struct that begins with struct_size grows only at its end, and struct_size says how much of it
// the caller knows. So an older caller's struct is shorter than ours, and a newer one's is longer:
//
//   older caller:  [ fields it knows ]                      the rest keeps our defaults
//   this runtime:  [ fields it knows ][ newer fields ]
//   newer caller:  [ fields it knows ][ newer fields ][ 0 ] the rest must be zero
//
// Zero means off, so a newer field that is zero asks for nothing that this runtime does not know.
// A field is read only if it ends within struct_size; half a field is never read.
#pragma once

#include <attnrt/attnrt.h>

#include "base/result.hpp"

namespace attnrt::core {

// Copies the fields that the caller knows over *ours, which holds the defaults, and sets
// ours->struct_size to our size. Errors: INVALID_ARGUMENT for a struct_size that is too small or
// absurdly large, and for a byte that is not zero past the fields that this runtime knows.
// Allocates nothing unless it fails.
Result<void> read_struct(const attnrt_problem& given, attnrt_problem* ours);
Result<void> read_struct(const attnrt_args& given, attnrt_args* ours);
Result<void> read_struct(const attnrt_call& given, attnrt_call* ours);
Result<void> read_struct(const attnrt_runtime_options& given, attnrt_runtime_options* ours);

}  // namespace attnrt::core
