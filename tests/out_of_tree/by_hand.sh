#!/bin/sh
# tests/out_of_tree/by_hand.sh: builds the minimal plugin without CMake (compiler and objcopy), and verifies it
set -eu
[ $# = 4 ] || { echo "usage: by_hand.sh CC INSTALL_TREE SOURCE_FOLDER WORK_FOLDER" >&2; exit 2; }
rm -rf "$4" && mkdir -p "$4"
"$1" -shared -fPIC -fvisibility=hidden -O2 -I "$2/include" -DATTNRT_PLUGIN_NAME='"minimal"' -DATTNRT_PLUGIN_VERSION='"1.0.0"' \
  -o "$4/in.so" "$3/plugin.c" -lm
"$2/bin/attnrt" list --plugins "$4" | grep 'has no section .attnrt_manifest.*objcopy'
{ cat "$3/manifest.yaml"; printf 'name: minimal\nversion: 1.0.0\nabi: 1\n'; } >"$4/manifest.yaml"
objcopy --add-section .attnrt_manifest="$4/manifest.yaml" --set-section-flags .attnrt_manifest=readonly,data "$4/in.so" "$4/minimal.so"
"$2/bin/attnrt" verify --plugin "$4/minimal.so"
