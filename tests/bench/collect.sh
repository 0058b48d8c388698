#!/bin/sh
# tests/bench/collect.sh: what host_time_bench and python_host_time.py need, in a folder for another machine
#
# BUILD_FOLDER has host_time_bench and the plugins cpu and hip_flash_cuda. PYTHON, of the other machine's version, has
# nanobind and nanobind-backend. On the other machine, in a checkout of this tree:
#
#   export LD_LIBRARY_PATH=FOLDER/lib ATTNRT_PLUGIN_PATH=FOLDER/plugins PYTHONPATH=FOLDER/python
#   FOLDER/bin/host_time_bench
#   python3 tests/bench/python_host_time.py
set -eu
[ $# = 3 ] || { echo "usage: collect.sh BUILD_FOLDER FOLDER PYTHON" >&2; exit 2; }
source=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd)
mkdir -p "$2/bin" "$2/lib" "$2/plugins" "$2/python"
folder=$(cd "$2" && pwd)

cp "$build/tests/bench/host_time_bench" "$folder/bin/"
cp -r "$build/tests/bench/null_plugins" "$folder/bin/"
for plugin in cpu hip_flash_cuda; do cp "$build/lib/attnrt/plugins/$plugin.so" "$folder/plugins/"; done
# All shared libraries, but the C and C++ ones, which every machine has.
ldd "$folder/bin/host_time_bench" "$folder/plugins"/*.so | awk '$2 == "=>" && $3 ~ "^/" {print $3}' | sort -u |
  grep -vE '/(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s)\.so' | while read -r library; do
  cp -L "$library" "$folder/lib/"
done

# The Python package, compiled against this tree's headers.
cp -r "$source/runtime/python/attnrt" "$folder/python/"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/prefix"
cat >"$scratch/prefix/attnrt-config.cmake" <<TEXT
add_library(attnrt::attnrt SHARED IMPORTED)
set_target_properties(attnrt::attnrt PROPERTIES
  IMPORTED_LOCATION $folder/lib/libattnrt.so.0 INTERFACE_INCLUDE_DIRECTORIES $source/runtime/include)
TEXT
version=$(sed -n 's/^project(attnrt VERSION \([0-9.]*\).*/\1/p' "$source/CMakeLists.txt")
printf 'set(PACKAGE_VERSION %s)\nset(PACKAGE_VERSION_EXACT TRUE)\nset(PACKAGE_VERSION_COMPATIBLE TRUE)\n' "$version" \
  >"$scratch/prefix/attnrt-config-version.cmake"
cmake -S "$source/runtime/python" -B "$scratch/build" -DCMAKE_BUILD_TYPE=Release -DSKBUILD_PROJECT_VERSION="$version" \
  -DCMAKE_PREFIX_PATH="$scratch/prefix;$("$3" -m nanobind --cmake_dir)" -DPython_EXECUTABLE="$3" >"$scratch/log"
cmake --build "$scratch/build" --parallel 2 >>"$scratch/log" || { tail -n 40 "$scratch/log" >&2; exit 1; }
cp "$scratch/build"/_attnrt*.so "$folder/python/attnrt/"
cp -r "$("$3" -c 'import nanobind_backend, os; print(os.path.dirname(nanobind_backend.__file__))')" "$folder/python/"
du -sh "$folder"
