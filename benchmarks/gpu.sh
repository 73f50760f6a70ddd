#!/bin/sh
# What wants a GPU: kernel tests at larger sizes, the training bench, the kernel bench, a study. Needs torch, triton,
# numpy, safetensors, pytest and hypothesis in the Python given as first argument; nothing is installed. With
# pytest-xdist the tests compile on all cores: ten seconds a configuration, and there are hundreds. The study wants all
# that miras-search does, and is left out where some of it is missing.
#
#     benchmarks/gpu.sh python3                      # everything
#     benchmarks/gpu.sh python3 tests                # one part, for machines that are lent for minutes:
#     benchmarks/gpu.sh python3 training kernels     # tests, training, kernels, compiled, grid, study
#
# `kernels` is one length and one number of memories, `compiled` the same with chunkwise torch compiled, `grid` all. Each
# design is a process and a line of a file, so that what fails or runs out of time takes nothing else along. Results go
# to $OUT when it is set, else to benchmarks/results; the exit status is that of the first part that failed.
set -u
cd "$(dirname "$0")/.."
python=${1:-python3}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- tests training kernels compiled grid study
out=${OUT:-benchmarks/results}
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export TRITON_DEFAULT_FP_FUSION=1 # what it is in any case: others' kernels would warn of it, which fails a test
status=0

failed() {
    echo "gpu.sh: $2 failed with status $1" >&2
    [ "$status" -ne 0 ] || status=$1
}

# one line for each design and precision: what the kernel bench says with the rest of the arguments
bench() {
    file=$1
    shift
    : >"$out/$file"
    "$python" -c "from miras_search.bench.kernels import DESIGNS; print(*DESIGNS, sep='\n')" | while read -r design; do
        for precision in float32 bfloat16; do
            "$python" -m miras_search.bench.kernels --only "$design" --precision "$precision" --json "$@" \
                </dev/null >>"$out/$file" ||
                echo "gpu.sh: $design in $precision has no line in $file" >&2
        done
    done
    [ -s "$out/$file" ] || failed 1 "$file"
}

"$python" - <<'PY' || exit
import torch, triton
print(f"torch {torch.__version__}, triton {triton.__version__}, CUDA {torch.cuda.is_available()}")
print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device: tests marked gpu will skip")
PY
cuda=$("$python" -c "import torch; print(torch.cuda.is_available())")
workers=$("$python" -c "import os, xdist; print('-n', min(16, os.cpu_count()))" 2>/dev/null || true)

for part in "$@"; do
    case $part in
    tests)
        # shellcheck disable=SC2086 # two words, or none
        "$python" -m pytest tests/kernels -m gpu -q $workers || failed $? tests
        ;;
    training)
        "$python" -m miras_search.bench.training --json >"$out/training.json" || failed $? training
        ;;
    kernels)
        # sizes of a GPU: on a CPU the grid is small enough
        if [ "$cuda" = True ]; then bench kernels.jsonl --tokens 2048 --memories 64 --width 64,128; fi
        ;;
    compiled)
        # a minute a shape
        if [ "$cuda" = True ]; then bench compiled.jsonl --tokens 2048 --memories 64 --width 64 --compile; fi
        ;;
    grid)
        bench grid.jsonl
        ;;
    study)
        if [ "$cuda" = False ]; then
            echo "gpu.sh: no study: no CUDA device"
        elif "$python" -c "import ray, optuna, sqlalchemy, pydantic, ruamel.yaml, typer" 2>/dev/null; then
            "$python" -m miras_search run studies/presets_quick.yaml --set resources.gpus=0.25 --db "$out/study.db" ||
                failed $? study
        else
            echo "gpu.sh: no study: ray, optuna or another package is missing"
        fi
        ;;
    *)
        echo "gpu.sh: $part: there is no such part: tests, training, kernels, compiled, grid, study" >&2
        exit 2
        ;;
    esac
done
exit "$status"
