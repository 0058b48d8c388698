#!/bin/sh
# tests/out_of_tree/install_tree.sh: installs the build tree, then moves the result: nothing in it may depend on where it lies
set -eu
[ $# = 3 ] || { echo "usage: install_tree.sh CMAKE BUILD_FOLDER INSTALL_FOLDER" >&2; exit 2; }
rm -rf "$3" "$3.before"
"$1" --install "$2" --prefix "$3.before" >/dev/null
mv "$3.before" "$3"
find "$3" ! -type d | LC_ALL=C sort
