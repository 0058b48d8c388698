#!/bin/sh
# tests/demo.sh: runs attnrt on the tensors of a language model and compares with exact results
set -eu
[ $# = 1 ] || { echo "usage: demo.sh BUILD_DIRECTORY" >&2; exit 2; }
attnrt=$1/bin/attnrt
data=$(dirname "$0")/data
output=$1/demo.safetensors
if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold='' plain=''; fi

say() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
# Prints a command, without this machine's directories, then runs it.
show() {
  printf '$ attnrt'
  for word; do
    case $word in */*) word=$(basename "$word") ;; *' '*) word="\"$word\"" ;; esac
    printf ' %s' "$word"
  done
  printf '\n'
  "$attnrt" "$@"
}

say "A small chat model (SmolLM2-135M-Instruct) reads this prompt"
# A safetensors file begins with the length of its header in 8 bytes; the header is JSON.
python3 - "$data/smollm2_layer18.safetensors" <<'PYTHON'
import json, struct, sys, textwrap
with open(sys.argv[1], "rb") as file:
    metadata = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))["__metadata__"]
for line in metadata["prompt"].splitlines():
    print(textwrap.fill(line, 100, initial_indent="  | ", subsequent_indent="  | "))
print("and continues:" + metadata["continuation"] + " ...")
PYTHON

say "The plugins on this machine"
show list

say "The backend that its attention gets on this machine, and why"
problem="dtype=f16 heads_q=9 heads_kv=3 seq_q=121 seq_kv=121 head_dim=64 causal=true"
show explain "$problem"

say "The backend on a Radeon RX 7900, by the manifests; this machine need not have one"
if "$attnrt" list --json | grep -q '"name": "hip_'; then
  show explain "$problem device=rocm arch=gfx1100"
else
  echo "No GPU plugin has been built. If their compilers are installed, ./dev install PREFIX or"
  echo "./dev test builds them, which takes minutes."
fi

for input in "$data"/smollm2_*.safetensors; do
  say "Run $(basename "$input" .safetensors), and compare with the exact result in the file"
  show run --input "$input" --output "$output" --lse --repeat 50
done
