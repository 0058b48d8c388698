#!/bin/sh
# tests/out_of_tree/pkg_config.sh: builds one C file with pkg-config's flags, and runs it
set -eu
[ $# = 5 ] || { echo "usage: pkg_config.sh CC LIBDIR SOURCE PROGRAM BACKEND" >&2; exit 2; }
export PKG_CONFIG_PATH="$2/pkgconfig"
# pkg-config prints several flags, which the shell is to split.
# shellcheck disable=SC2046
"$1" -std=c11 -Wall -Werror "$3" -o "$4" $(pkg-config --cflags --libs attnrt) -lm -Wl,-rpath,"$(pkg-config --variable=libdir attnrt)"
"$4" "$5"
