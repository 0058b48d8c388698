/* tests/abi/abi_layout.c: plugin.h and attnrt.h as C11 sees them, held against abi_layout.inc */
#include <attnrt/attnrt.h>

#define VALUE(name, value) _Static_assert((name) == (value), #name " has another value");
#define STRUCT(type, bytes) _Static_assert(sizeof(type) == (bytes), #type " has another size");
#define FIELD(type, field, offset, bytes, ...)                                                   \
  _Static_assert(offsetof(type, field) == (offset), #type "." #field " lies elsewhere");         \
  _Static_assert(sizeof(((type*)NULL)->field) == (bytes), #type "." #field " has another size"); \
  _Static_assert(_Generic(&((type*)NULL)->field, __typeof__(__VA_ARGS__)* : 1, default : 0),     \
                 #type "." #field " has another type");

#include "abi_layout.inc"
