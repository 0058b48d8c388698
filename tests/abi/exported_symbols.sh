#!/bin/sh
# tests/abi/exported_symbols.sh: a shared library's dynamic symbols, compared with a committed list
set -eu
[ $# = 2 ] || { echo "usage: exported_symbols.sh LIBRARY LIST" >&2; exit 2; }
found=$(nm --dynamic --defined-only --format=posix "$1" | cut -d ' ' -f 1 | LC_ALL=C sort)
printf '%s\n' "$found" | diff -u "$2" - || {
  echo "$1 exports other symbols than $2 says (- missing, + not expected)" >&2
  exit 1
}
