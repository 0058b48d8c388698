// plugins/cpu/supports.cpp: a problem into yes, or the reason why its numbers make no sense together
#include "plugins/cpu/backend.hpp"

namespace attnrt_cpu {

// The manifest allows everything that the vocabulary can say; what is left are combinations that mean nothing.
attnrt_status supports(void*, const attnrt_problem* problem, attnrt_add_reason add, void* sink) {
  kernels::Problem translated;
  attnrt_error error = ATTNRT_ERROR_INIT;
  if (translate(*problem, &translated, &error) == ATTNRT_OK) return ATTNRT_OK;
  add(sink, error.message);
  return ATTNRT_UNSUPPORTED;
}

}  // namespace attnrt_cpu
