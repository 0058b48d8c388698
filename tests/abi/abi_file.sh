#!/bin/sh
# tests/abi/abi_file.sh: the types of the public headers, compared with a committed ABI file, or written to it
#
# LIBRARY is abi_types, which names every type. Debian's abigail-tools has abidw and abidiff; without them the exit status is
# 77, which ctest takes for skipped.
set -eu
[ $# = 3 ] || { echo "usage: abi_file.sh check|update LIBRARY FILE" >&2; exit 2; }
for tool in abidw abidiff; do
  command -v "$tool" >/dev/null || { echo "skipped: $tool is not here; Debian's abigail-tools has it"; exit 77; }
done
found=$(mktemp)
trap 'rm -f "$found" "$found.dump"' EXIT
abidw --no-corpus-path --no-comp-dir-path --no-show-locs --no-elf-needed --no-architecture --no-write-default-sizes \
  --type-id-style hash --out-file "$found.dump" "$2"
sed "s/ path='[^']*'//" "$found.dump" >"$found"
case $1 in
  update) cp "$found" "$3" && echo "wrote $3" ;;
  check)
    abidiff --harmless --no-default-suppression "$3" "$found" || {
      echo "The public headers differ from $3. docs/abi.md says which changes are allowed; if this is one of them:" \
        "cmake --build BUILD_FOLDER --target update_abi" >&2
      exit 1
    } ;;
  *) echo "found '$1'; expected check or update" >&2; exit 2 ;;
esac
