"""The token loop's and the decode step's bodies compile for a GPU that is not there.

In a process of its own: the compiler needs no device, but must not see TRITON_INTERPRET.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

COMPILE = """
import sys

import triton
from loops import DESIGNS
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from miras_search.kernels.triton.decode import decode_kernel
from miras_search.kernels.triton.loop_launch import block, warps
from miras_search.kernels.triton.tiles import FUSED
from miras_search.kernels.triton.loop_run import loop_rule
from miras_search.kernels.triton.token_loop import backward_kernel, forward_kernel
from miras_search.space.design import DesignPoint

HALF = {f"{d}{n}_ptr" for d in ("", "d_") for n in ("q", "k", "v", "w", "y")}


def compile_body(body, design, K, V, dtype):
    point = DesignPoint.parse(design)
    rule = loop_rule(point)
    given = {
        "w": point.algorithm.splits_keys, "momentum": rule.momentum != "none", "threshold": rule.threshold != "none",
        "parameter": bool(point.retention.static()),
    }
    known = {
        **rule.constants(), "K": K, "V": V, "BLOCK_K": block(K), "BLOCK_V": block(V), "VJP": rule.pair.vjp,
        "LINK_VJP": None if rule.link is None else rule.link.backward, "OWN_KEYS": given["w"],
        "EVERY": 16, "SAVE": True, "HAS_PARAMETER": given["parameter"],
        "EXACT": rule.sweeps is None, "SWEEPS": rule.sweeps or 0,
    }
    known |= {f"{d}{name}_ptr": None for name, there in given.items() if not there for d in ("", "d_")}
    constants = {n: known[n] for n in body.arg_names if n in known}
    types = {"N": "i32", "H": "i32", "position": "i32"} | {n: f"*{dtype}" for n in HALF}
    signature = {n: "constexpr" if n in constants else types.get(n, "*fp32") for n in body.arg_names}
    positions = {(body.arg_names.index(n),): value for n, value in constants.items()}
    built = triton.compile(
        ASTSource(body, signature, positions), target=GPUTarget("cuda", 90, 32),
        options={"num_warps": warps(K, V)} | FUSED,
    )
    print(built.metadata.name)


CASES = [
    (DESIGNS["erase and write"] | {"retention": "lq"}, 12, 16, "fp32"),
    (DESIGNS["elastic net, in place, decayed"], 3, 8, "bf16"),
    (DESIGNS["kl by chunks, frozen"], 12, 16, "fp32"),
    (DESIGNS["no link by channel"], 12, 16, "fp32"),
]
for body in (forward_kernel, backward_kernel, decode_kernel):
    for case in CASES[: int(sys.argv[1])]:
        compile_body(body, *case)
"""


@pytest.mark.parametrize("cases", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_bodies_compile_for_hopper(cases: int, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    environment["PYTHONPATH"] = str(Path(__file__).parents[1] / "support")
    script = tmp_path / "compile_bodies.py"  # a file: Triton reads the source of what it compiles
    script.write_text(COMPILE)
    command = [sys.executable, "-W", "error", str(script), str(cases)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = ["forward_kernel", "backward_kernel", "decode_kernel"]
    assert done.stdout.split() == [name for name in names for _ in range(cases)]
