#!/bin/sh
# tests/runtime/python/python_module.sh: an install tree into a Python environment that has the package, and its tests' answer
set -eu
[ $# = 4 ] || { echo "usage: python_module.sh PYTHON SOURCE_FOLDER INSTALL_FOLDER ENVIRONMENT_FOLDER" >&2; exit 2; }
python=$1 source=$2 tree=$3 environment=$4 log=$4.log
unset ATTNRT_POLICY ATTNRT_PLUGIN_PATH ATTNRT_BACKEND ATTNRT_DISABLE ATTNRT_LOG ATTNRT_STATS
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PYTHONDONTWRITEBYTECODE=1

# Runs a step quietly; a failure is one clear line, with the end of what the step said after it.
step() {
  failure=$1
  shift
  "$@" >"$log" 2>&1 || { echo "python_module: $failure" >&2; tail -n 40 "$log" >&2; exit 1; }
}

mkdir -p "$(dirname "$environment")"
rm -rf "$environment"
step "python3 cannot make an environment: install python3-venv" \
  "$python" -m venv --system-site-packages "$environment"
step "PyPI cannot be reached, or has no scikit-build-core, nanobind, nanobind-backend, numpy, ml_dtypes, onnx for this Python" \
  "$environment/bin/pip" install --timeout 20 --retries 2 "scikit-build-core>=1.1,<2" "nanobind>=3.1,<4" nanobind-backend \
  numpy ml_dtypes onnx==1.23.2
step "the package does not build against $tree (Python headers: python3-dev)" \
  env CMAKE_PREFIX_PATH="$tree" "$environment/bin/pip" install --timeout 20 --retries 2 "$source" \
  --config-settings=cmake.source-dir=runtime/python
cd "$(dirname "$environment")"  # not where a folder named attnrt lies
"$environment/bin/python" -m unittest discover --start-directory "$source/tests/runtime/python" --pattern "*_test.py"
step "the command attnrt of the package does not run" "$environment/bin/attnrt" list --wait
grep -q "^ *cpu .* ready" "$log" || { echo "python_module: the command attnrt finds no cpu that is ready" >&2; cat "$log" >&2; exit 1; }
"$environment/bin/python" "$source/examples/attention.py" cpu
"$environment/bin/python" "$source/examples/cascade.py"
"$environment/bin/python" "$source/examples/continuous_batching.py"
"$environment/bin/python" "$source/examples/prometheus.py"
step "tests/bench/python_host_time.py does not run" "$environment/bin/python" "$source/tests/bench/python_host_time.py" --calls 50
