#!/bin/sh
# Everything that wants a GPU, in one call: kernel tests at larger sizes, then the training and kernel benches. Needs
# torch, triton, numpy, safetensors, pytest and hypothesis in the Python given as first argument; nothing is installed.
# With pytest-xdist the tests compile on all cores: ten seconds a configuration, and there are hundreds.
# Results go to $OUT when it is set, else to benchmarks/results.
set -eu
cd "$(dirname "$0")/.."
python=${1:-python3}
out=${OUT:-benchmarks/results}
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

"$python" - <<'PY'
import torch, triton
print(f"torch {torch.__version__}, triton {triton.__version__}, CUDA {torch.cuda.is_available()}")
print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device: tests marked gpu will skip")
PY
cuda=$("$python" -c "import torch; print(torch.cuda.is_available())")
workers=$("$python" -c "import os, xdist; print('-n', min(16, os.cpu_count()))" 2>/dev/null || true)
# shellcheck disable=SC2086 # two words, or none
"$python" -m pytest tests/kernels -m gpu -q $workers
"$python" -m miras_search.bench.training --json > "$out/training.json"
for precision in float32 bfloat16; do
    "$python" -m miras_search.bench.kernels --precision "$precision" --json > "$out/kernels-$precision.json"
    # compiling takes a minute a shape: one length and one number of memories, and nothing of it on a CPU
    if [ "$cuda" = True ]; then
        "$python" -m miras_search.bench.kernels --precision "$precision" --compile --tokens 2048 --memories 64 --json \
            > "$out/kernels-compiled-$precision.json"
    fi
done
