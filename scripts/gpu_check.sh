#!/usr/bin/env bash
# What a CUDA build of kvprof does on this machine's GPU, in one table and one JSON file, in under ten minutes.
#
#     scripts/gpu_check.sh BINARY [OUT] [MODEL]
#
# BINARY is kvprof built with `--features cuda`; OUT a folder to fill (default: gpu-check); MODEL as --model takes it
# (default: the default model, which must be in the cache folder where there is no network).
# KVPROF_CUDA_TESTS may name the compiled test program tests/cuda, which is then run too. PyTorch and transformers
# are timed beside kvprof on the default model's geometry where python3 can import them. Needs python3 for the table.
# It fails where float32 measures of the GPU are not those of the CPU but for rounding, or texts differ.
# KVPROF_CHECK_DEVICE=cpu and KVPROF_CHECK_LENGTHS=1100 try the script itself where there is no GPU.
set -euo pipefail
binary=${1:?usage: gpu_check.sh BINARY [OUT] [MODEL]}
out=${2:-gpu-check}
model=${3:-smollm2-135m}
device=${KVPROF_CHECK_DEVICE:-cuda}
lengths=${KVPROF_CHECK_LENGTHS:-1024,4096,8000}
mkdir -p "$out"
log=$out/log.txt
: > "$log"

step() { # step NAME COMMAND...: runs it, keeps what it prints, and remembers whether it succeeded
  local name=$1 status=0
  shift
  printf '%s\n' "$name" >&2
  local start=$SECONDS
  timeout 240 "$@" > "$out/$name.json" 2>> "$log" || status=$?
  printf '%s %s %s\n' "$name" "$status" "$((SECONDS - start))" >> "$out/steps.txt"
}

: > "$out/steps.txt"
rm -rf "$out"/profile-cpu-f32 "$out"/profile-gpu-f32 "$out"/profile-gpu-bf16
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader > "$out/gpu.txt" 2>> "$log" || true

if [ -n "${KVPROF_CUDA_TESTS:-}" ]; then
  step tests "$KVPROF_CUDA_TESTS" --nocapture
fi
step room "$binary" profile --device "$device" --dtype bf16 --model "$model" --dry-run --json
if ! grep -q '^room 0 ' "$out/steps.txt"; then
  echo "$binary does not run on $device here:" >&2
  head -n 3 "$log" >&2
  exit 1
fi

profile() { # profile NAME DEVICE DTYPE
  step "profile-$1" "$binary" profile --model "$model" --device "$2" --dtype "$3" --limit 2 --out "$out/profile-$1" --json
}
profile cpu-f32 cpu f32
profile gpu-f32 "$device" f32
profile gpu-bf16 "$device" bf16
for other in gpu-f32 gpu-bf16; do
  step "compare-$other" "$binary" compare "$out/profile-cpu-f32" "$out/profile-$other" --json
done

prompt=$out/prompt.txt
for i in $(seq 1 60); do
  printf 'Line %s: the keeper of lighthouse number %s is called Keeper %s. ' "$i" "$i" "$((i * 37 % 101))"
done > "$prompt"
printf '\nWho keeps lighthouse number 17?\n' >> "$prompt"
text() { # text NAME DEVICE
  local common=(--model "$model" --device "$2" --prompt-file "$prompt" --max-new-tokens 24 --json)
  step "text-$1" "$binary" generate "${common[@]}"
  step "cut-$1" "$binary" generate "${common[@]}" --strategy zigzag --budget 128
}
text cpu cpu
text gpu "$device"

for dtype in f32 bf16; do
  step "bench-$dtype" "$binary" bench --model "$model" --device "$device" --dtype "$dtype" --lengths "$lengths" \
    --only prefill,profile-32,profile-all,decode-full,decode-1024,decode-256 --repeats 3 --steps 32 --json
done

if [ "$model" = smollm2-135m ] && python3 -c 'import torch, transformers; assert torch.cuda.is_available()' 2>> "$log"; then
  step torch python3 "$(dirname "$0")/gpu_torch.py" ${lengths//,/ }
fi
python3 "$(dirname "$0")/gpu_table.py" "$out"
