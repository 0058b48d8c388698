#!/bin/sh
# runtime/packages/pack.sh: packs what a build tree has built, each Debian package with its own version, and lists them
set -eu
[ $# -ge 2 ] || { echo "usage: pack.sh BUILD_FOLDER OUT_FOLDER [PACKAGE...]" >&2; exit 2; }
build=$1 out=$2
shift 2
[ $# -gt 0 ] || for file in "$build"/packages/*.cmake; do set -- "$@" "$(basename "$file" .cmake)"; done
mkdir -p "$out"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT   # without these two, dash ends without the one above
trap 'exit 143' TERM
: "${SOURCE_DATE_EPOCH:=$(git -C "$(dirname "$0")" log -1 --format=%ct 2>/dev/null || date +%s)}"
export SOURCE_DATE_EPOCH
for package; do
  [ -e "$build/packages/$package.cmake" ] || { echo "pack: $build has no package $package" >&2; exit 1; }
  cpack --config "$build/packages/$package.cmake" -B "$scratch" >"$scratch/log" 2>&1 ||
    { cat "$scratch/log" >&2; exit 1; }
  rm -rf "$scratch/_CPack_Packages"
done
# The old files go only now: a package that cannot be packed takes none of them away.
for package; do
  rm -f "$out/${package}"_*.deb
  mv "$scratch/${package}"_*.deb "$out"
done
printf '%-34s %-12s %s\n' package version size
for package; do
  file=$(echo "$out/${package}"_*.deb)
  printf '%-34s %-12s %s\n' "$package" "$(dpkg-deb --field "$file" Version)" \
    "$(du --apparent-size --human-readable "$file" | cut -f1)"
done
