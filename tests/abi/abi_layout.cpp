// tests/abi/abi_layout.cpp: plugin.h and attnrt.h as C++20 sees them, held against abi_layout.inc
#include <attnrt/attnrt.h>

#include <type_traits>

#define VALUE(name, value) static_assert((name) == (value), #name " has another value");
#define STRUCT(type, bytes)                                                 \
  static_assert(sizeof(type) == (bytes), #type " has another size");        \
  static_assert(std::is_trivial_v<type> && std::is_standard_layout_v<type>, \
                #type " is no plain C struct");
#define FIELD(type, field, offset, bytes, ...)                                            \
  static_assert(offsetof(type, field) == (offset), #type "." #field " lies elsewhere");   \
  static_assert(sizeof(type::field) == (bytes), #type "." #field " has another size");    \
  static_assert(std::is_same_v<decltype(type::field), std::type_identity_t<__VA_ARGS__>>, \
                #type "." #field " has another type");

extern "C" {
#include "abi_layout.inc"
}
