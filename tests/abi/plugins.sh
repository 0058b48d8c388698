#!/bin/sh
# tests/abi/plugins.sh: every plugin in a folder: one exported symbol, no library that may be missing, and a manifest that
# strip leaves alone
set -eu
[ $# = 2 ] || { echo "usage: plugins.sh FOLDER SCRATCH_FOLDER" >&2; exit 2; }
here=$(dirname "$0")
mkdir -p "$2"
checked=0
for plugin in "$1"/*.so; do
  [ -e "$plugin" ] || break
  sh "$here/exported_symbols.sh" "$plugin" "$here/plugin.symbols"
  needed=$(objdump --private-headers "$plugin" | sed -n 's/^ *NEEDED *//p' | grep -vE '^(libc|libm|ld-linux-x86-64)\.so' || true)
  [ -z "$needed" ] || { echo "$plugin needs $needed (expected: libc, libm and the loader)" >&2; exit 1; }
  stripped=$2/$(basename "$plugin")
  strip --strip-all -o "$stripped" "$plugin"
  objcopy --dump-section .attnrt_manifest="$stripped.before" "$plugin" /dev/null
  objcopy --dump-section .attnrt_manifest="$stripped.after" "$stripped" /dev/null
  cmp "$stripped.before" "$stripped.after"
  grep -q '^name:' "$stripped.after"
  checked=$((checked + 1))
done
[ "$checked" -gt 0 ] || { echo "no plugin in $1" >&2; exit 1; }
echo "$checked plugins"
