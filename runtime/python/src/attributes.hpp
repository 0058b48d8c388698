// runtime/python/src/attributes.hpp: what a call asks for beside its tensors, parsed once
//
// attention() gets causal, align, scale and so on as Python objects. The C library parses them as
// words, which takes microseconds. A model calls with the same few sets of values again and again,
// so the last sets are kept with the problems that they parsed to.
#pragma once

#include <attnrt/attnrt.h>
#include <nanobind/nanobind.h>

#include <array>
#include <cstddef>

namespace attnrt_python {

namespace nb = nanobind;

// REQUIRES of all calls: the GIL is held.
class ParsedAttributes {
 public:
  // Returns the problem of the attributes, which parse() makes if it is not known.
  template <class Parse>
  static attnrt_problem problem_of(const nb::tuple& attributes, Parse&& parse) {
    for (const Entry& entry : entries_)
      if (entry.attributes != nullptr && same(entry.attributes, attributes.ptr()))
        return entry.problem;
    const attnrt_problem problem = parse();
    if (!is_immutable(attributes.ptr())) return problem;
    Entry& oldest = entries_[next_++ % kEntries];
    PyObject* const before = oldest.attributes;
    oldest = {nb::object(attributes).release().ptr(), problem};
    Py_XDECREF(before);
    return problem;
  }

 private:
  static constexpr size_t kEntries = 8;
  struct Entry {
    PyObject* attributes;  // a tuple; null: none yet
    attnrt_problem problem;
  };

  // Whether no element can change, so that the same objects always mean the same.
  static bool is_immutable(PyObject* tuple) {
    for (Py_ssize_t i = 0; i < PyTuple_Size(tuple); ++i) {
      PyObject* const each = PyTuple_GetItem(tuple, i);
      if (each != Py_None && !PyBool_Check(each) && !PyLong_CheckExact(each) &&
          !PyFloat_CheckExact(each) && !PyUnicode_CheckExact(each))
        return false;
    }
    return true;
  }

  // Whether the elements are the same objects, or floats or texts of the same value. True and 1 are
  // not the same: as words they differ. REQUIRES: all of a are immutable.
  static bool same(PyObject* a, PyObject* b) {
    if (PyTuple_Size(a) != PyTuple_Size(b)) return false;
    for (Py_ssize_t i = 0; i < PyTuple_Size(a); ++i) {
      PyObject *const x = PyTuple_GetItem(a, i), *const y = PyTuple_GetItem(b, i);
      if (x == y) continue;
      if (Py_TYPE(x) != Py_TYPE(y)) return false;
      if (PyFloat_CheckExact(x) && PyFloat_AsDouble(x) == PyFloat_AsDouble(y)) continue;
      if (PyUnicode_CheckExact(x) && PyUnicode_Compare(x, y) == 0) continue;
      if (PyLong_CheckExact(x) && PyObject_RichCompareBool(x, y, Py_EQ) == 1) continue;
      return false;
    }
    return true;
  }

  static inline std::array<Entry, kEntries> entries_{};
  static inline size_t next_ = 0;
};

}  // namespace attnrt_python
