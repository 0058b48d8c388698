#!/bin/sh
# tests/abi/statics.sh: libraries without static variables that a call initialises
#
# At a fork another thread may be initialising such a variable. The child would wait for that thread
# for ever, when it needs the variable, too.
set -eu
[ $# -gt 0 ] || { echo "usage: statics.sh LIBRARY..." >&2; exit 2; }
for library; do
  if nm --demangle "$library" | grep 'guard variable for'; then
    echo "$library has these; see only() in runtime/src/base/fork.hpp" >&2
    exit 1
  fi
done
