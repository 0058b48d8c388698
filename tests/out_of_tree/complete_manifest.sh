#!/bin/sh
# tests/out_of_tree/complete_manifest.sh: checks what attnrt_add_plugin embeds: the author's lines first, unchanged, then
# what they leave out; and that an incomplete version is an error of configuring
set -eu
[ $# = 4 ] || { echo "usage: complete_manifest.sh CMAKE INSTALL_TREE PROJECT WORK_FOLDER" >&2; exit 2; }
rm -rf "$4" && mkdir -p "$4"
cp "$3"/* "$4"
"$1" -S "$4" -B "$4/build" -DCMAKE_PREFIX_PATH="$2" >/dev/null
lines=$(wc -l <"$4/manifest.yaml")
head -n "$lines" "$4/build/minimal_manifest.yaml" | cmp - "$4/manifest.yaml"
tail -n +"$lines" "$4/build/minimal_manifest.yaml" | grep -x 'version: 1.0.0'
sed -i 's/VERSION 1.0.0/VERSION 1.0/' "$4/CMakeLists.txt"
if "$1" -S "$4" -B "$4/build" >"$4/log" 2>&1; then
  echo "VERSION 1.0 was accepted" >&2
  exit 1
fi
tr -s '\n ' ' ' <"$4/log" | grep 'minimal: version is 1.0, expected a semantic version such as 1.0.0'
