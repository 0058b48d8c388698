// runtime/python/src/errors.hpp: a status of the C library as a Python exception
#pragma once

#include <attnrt/attnrt.h>
#include <nanobind/nanobind.h>

#include <array>
#include <cstddef>
#include <string>

namespace attnrt_python {

namespace nb = nanobind;

inline const char* status_name(attnrt_status status) {
  constexpr std::array names{
      "ok",          "unsupported", "out of memory", "invalid argument", "internal error",
      "device lost", "not found"};
  const auto index = static_cast<size_t>(status);
  return index < names.size() ? names.at(index) : "unknown status";
}

// Raises attnrt.Error or one of its subclasses. REQUIRES: the GIL is held.
[[noreturn]] inline void raise(attnrt_status status, const std::string& message) {
  const auto size = static_cast<Py_ssize_t>(message.size());
  const auto text = nb::steal<nb::str>(PyUnicode_DecodeUTF8(message.data(), size, "replace"));
  const nb::object error =
      nb::module_::import_("attnrt.errors").attr("error_of")(status_name(status), text);
  PyErr_SetObject(error.type().ptr(), error.ptr());
  throw nb::python_error();
}

[[noreturn]] inline void invalid(const std::string& message) {
  raise(ATTNRT_INVALID_ARGUMENT, message);
}

// Calls without the GIL, and raises if the status that call(error) returns is not OK.
template <class Function>
void unlocked(Function&& call) {
  attnrt_error error = ATTNRT_ERROR_INIT;
  attnrt_status status = ATTNRT_OK;
  {
    const nb::gil_scoped_release release;
    status = call(&error);
  }
  if (status != ATTNRT_OK) raise(status, error.message);
}

}  // namespace attnrt_python
