#!/bin/sh
# tests/demo.sh: a language model's own queries, keys and values into attention, and how far it is from the exact answer
set -eu
[ $# = 1 ] || { echo "usage: demo.sh BUILD_FOLDER" >&2; exit 2; }
attnrt=$1/bin/attnrt
input=$(dirname "$0")/data/smollm2_layer18.safetensors
output=$1/demo.safetensors

say() { printf '\n== %s\n' "$*"; }
show() {
  printf '$ %s\n' "$*"
  "$@"
}

say "the input: layer 18 of a small chat model, reading this prompt"
# A safetensors file begins with the length of its header in 8 bytes, then the header as JSON.
python3 - "$input" <<'PYTHON'
import json, struct, sys
with open(sys.argv[1], "rb") as file:
    header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
metadata = header["__metadata__"]
print(metadata["prompt"])
for name in ("q", "k", "v"):
    print(name, header[name]["dtype"], header[name]["shape"])
PYTHON

say "which backends are here"
show "$attnrt" list

say "which of them is chosen for this problem, and why"
show "$attnrt" explain "dtype=f16 batch=1 heads_q=9 heads_kv=3 seq_q=121 seq_kv=121 head_dim=64 causal=true"

say "run it, and compare with the exact answer that the file holds"
show "$attnrt" run --input "$input" --output "$output" --repeat 20
