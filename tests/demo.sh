#!/bin/sh
# tests/demo.sh: a language model's own queries, keys and values into attention, and how far it is from the exact answer
set -eu
[ $# = 1 ] || { echo "usage: demo.sh BUILD_FOLDER" >&2; exit 2; }
attnrt=$1/bin/attnrt
data=$(dirname "$0")/data
output=$1/demo.safetensors
if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold='' plain=''; fi

say() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
show() { # what is run, without this machine's folders, then its output
  printf '$ attnrt'
  for word; do
    case $word in */*) word=$(basename "$word") ;; *' '*) word="\"$word\"" ;; esac
    printf ' %s' "$word"
  done
  printf '\n'
  "$attnrt" "$@"
}

say "a small chat model (SmolLM2-135M-Instruct) reads this prompt"
# A safetensors file begins with the length of its header in 8 bytes, then the header as JSON.
python3 - "$data/smollm2_layer18.safetensors" <<'PYTHON'
import json, struct, sys, textwrap
with open(sys.argv[1], "rb") as file:
    metadata = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))["__metadata__"]
for line in metadata["prompt"].splitlines():
    print(textwrap.fill(line, 100, initial_indent="  | ", subsequent_indent="  | "))
print("and goes on:" + metadata["continuation"] + " ...")
PYTHON

say "which plugins are here"
show list

say "what its attention would get here, and why"
show explain "dtype=f16 heads_q=9 heads_kv=3 seq_q=121 seq_kv=121 head_dim=64 causal=true"

say "and on a Radeon RX 7900, which need not be here: the manifests say it"
if "$attnrt" list --json | grep -q '"name": "hip_'; then
  show explain "dtype=f16 heads_q=9 heads_kv=3 seq_q=121 seq_kv=121 head_dim=64 causal=true device=rocm arch=gfx1100"
else
  echo "No GPU plugin is built yet: ./dev install PREFIX or ./dev test builds them (minutes), where their compilers are."
fi

for input in "$data"/smollm2_*.safetensors; do
  say "run $(basename "$input" .safetensors), and compare with the exact answer that the file holds"
  show run --input "$input" --output "$output" --lse --repeat 50
done
