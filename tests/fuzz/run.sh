#!/bin/sh
# tests/fuzz/run.sh: runs one fuzzer on its seeds and on what it found before: run.sh FUZZER TARGET SECONDS FOLDER
#
# New inputs that reach new code are kept in FOLDER/corpus, and an input that breaks a property in FOLDER. FUZZ_SEED
# (1) makes two runs alike.
set -eu
fuzzer=$1 target=$2 seconds=$3 folder=$4
here=$(dirname "$0")
mkdir -p "$folder/corpus"
dictionary=$here/dictionaries/$target.dict
set --
if [ -e "$dictionary" ]; then set -- -dict="$dictionary"; fi
exec "$fuzzer" "$folder/corpus" "$here/seeds/$target" -artifact_prefix="$folder/" -seed="${FUZZ_SEED:-1}" \
  -max_total_time="$seconds" -max_len=16384 -timeout=60 -rss_limit_mb=1024 -print_final_stats=1 "$@"
