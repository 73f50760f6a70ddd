"""The chunked kernel's bodies compile for a GPU that is not there.

The interpreter runs the bodies as Python, so it accepts code that Triton's compiler refuses: a loop variable that
changes its type, a shape that is no power of two. The compiler needs no device, but it must not see TRITON_INTERPRET:
a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

BODIES = ("forward_kernel", "backward_kernel")
SWEPT = ("huber", "fp32", BODIES, {"SWEEPS": 2, "DECAYED": True, "THRESHOLD": "head", "HAS_MOMENTUM": True})
KEYED = {"EXACT": True, "SOLVE": True, "KEYED": True, "HAS_W": True, "WRITES": 2, "BLOCK_C": 32, "PRECISION": "split"}
SOLVED = ("l2", "bf16", BODIES, KEYED)
AT_ONCE = ("l2", "bf16", ("transition_kernel", "carry_kernel", *BODIES), KEYED | {"AT_ONCE": True, "KEYED": False})
BACKWARD = ("l2", "fp32", ("transition_kernel", "carry_kernel"), KEYED | {"BACKWARD": True, "PRECISION": "ieee"})
COMPILE = """
import ast, sys
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from miras_search.kernels.triton import chunked, chunked_backward, transitions
from miras_search.kernels.triton.launch import configurations, tuned
from miras_search.kernels.triton.signals import pair_of
from miras_search.kernels.triton.tiles import FUSED
from miras_search.space.bias import BIAS

bias, dtype, bodies, rule = ast.literal_eval(sys.argv[1])
WIDE = ("q_ptr", "k_ptr", "v_ptr", "w_ptr", "y_ptr", "d_y_ptr", "d_q_ptr", "d_k_ptr", "d_v_ptr", "d_w_ptr")
BODIES = vars(chunked) | vars(chunked_backward) | vars(transitions)


def compile_body(body, bias, dtype, **rule):
    pair = pair_of(bias.triton)
    constants = dict(
        K=12, V=16, SIGNAL=pair.signal, VJP=pair.vjp, SETTINGS=pair.settings, SLOPE=bias.slope or 0.0, CHUNK=16,
        WRITES=1, SWEEPS=0, EXACT=False, SOLVE=False, DECAYED=False, KEYED=False, HAS_W=False, HAS_MOMENTUM=False,
        THRESHOLD="none", HAS_INITIAL=True, SAVE_STARTS=True, AT_ONCE=False, HAS_BEGIN=True,
        BACKWARD=False, NEAR=16, BLOCK_C=16, BLOCK_K=16, BLOCK_V=16,
        PRECISION="ieee",
    ) | rule
    parts = {"w": constants["HAS_W"], "momentum": constants["HAS_MOMENTUM"], "threshold": bool(bias.threshold_scopes)}
    absent = {f"{d}{name}_ptr" for name, there in parts.items() if not there for d in ("", "d_")}
    constants = {n: constants.get(n) for n in body.arg_names if n in constants or n in absent}
    types = {"T": "i32", "H": "i32", "chunks": "i32"} | {n: f"*{dtype}" for n in WIDE}
    signature = {n: "constexpr" if n in constants else types.get(n, "*fp32") for n in body.arg_names}
    positions = {(body.arg_names.index(n),): value for n, value in constants.items()}
    built = triton.compile(
        ASTSource(body, signature, positions), target=GPUTarget("cuda", 90, 32), options={"num_warps": 4} | FUSED
    )
    tuned(body, tuple(configurations(torch.bfloat16, 32)))  # which refuses to be told of arguments that are not there
    print(built.metadata.name, len(built.asm["ptx"]), flush=True)


for name in bodies:
    compile_body(BODIES[name], BIAS.parse(bias), dtype, **rule)
"""


@pytest.mark.parametrize("case", [SWEPT, SOLVED, AT_ONCE, BACKWARD], ids=["swept", "solved", "at once", "backward"])
def test_bodies_compile_for_hopper(tmp_path: Path, case: tuple[str, str, tuple[str, ...], dict[str, object]]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    script = tmp_path / "compile_bodies.py"  # a file: Triton reads the source of what it compiles
    script.write_text(COMPILE)
    command = [sys.executable, "-W", "error", str(script), repr(case)]  # warnings fail tests on a device too
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(case[2])
