// runtime/src/base/guarded.hpp: calls a function, and turns what it throws into a status
#pragma once

#include <attnrt/plugin.h>

#include <exception>

namespace attnrt::core {

// Calls `call` and returns its status. If it throws, returns what `on_exception` makes of the
// exception, which is nullptr for one that is not a std::exception. Used at both C boundaries: no
// exception may cross them.
template <class Call, class OnException>
attnrt_status guarded(Call&& call, OnException&& on_exception) {
  try {
    return call();
  } catch (const std::exception& exception) {
    return on_exception(&exception);
  } catch (...) {
    return on_exception(nullptr);
  }
}

}  // namespace attnrt::core
