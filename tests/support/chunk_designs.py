"""Designs for the chunked Triton kernel: each mode of it, and each place of a gate in it."""

from __future__ import annotations

SOFT = {"source": "data", "squash": "softplus", "value": 1.0}
BY_KEY = {"l2": {"keep": {"source": "data", "scope": "key"}}}


def huber(form: str, scope: str = "head") -> dict[str, object]:
    return {"huber": {"form": form, "delta": {**SOFT, "scope": scope}}}


def execution(gradient: object, chunk: int = 4, at: str = "previous") -> dict[str, object]:
    return {"execution": {"gradient": gradient, "chunk": chunk, "gradient_at": at}}


POINTS: list[tuple[dict[str, object], int]] = [  # with their tokens
    # exact gradients: by a triangular solve, by sweeps, without either
    ({"preset": "gated_delta_net"}, 17),
    ({"bias": {"l2": {"scale": "full"}}}, 17),
    ({"bias": "dot", "retention": "l2"}, 5),
    ({"bias": "lp", "retention": "l2"}, 18),
    ({"bias": huber("coordinate", "value"), "retention": "l2"} | execution("exact", at="decayed"), 7),
    ({"algorithm": "implicit", "retention": "l2"} | execution("exact", at="decayed"), 1),
    # frozen and refined
    ({"bias": "l1"} | execution("frozen"), 8),
    ({"bias": {"lp": {"p": 3.0, "smoothing": "tanh"}}, "retention": "l2"} | execution({"refined": 2}), 8),
    ({"bias": huber("pseudo", "value"), "retention": "l2"} | execution({"refined": 1}, at="decayed"), 8),
    ({"bias": huber("pseudo_norm")} | execution({"refined": 2}, 5), 5),
    ({"bias": huber("switch"), "retention": "l2"} | execution("frozen"), 8),
    ({"bias": {"value_shift": {"delta": SOFT}}} | execution({"refined": 2}), 4),
    # several writes a token, and write keys of their own
    ({"preset": "delta_product"}, 9),
    ({"algorithm": {"multi_step": {"writes": 3}}, "bias": "logcosh", "retention": "l2"}
     | execution({"refined": 2}, at="decayed"), 8),
    ({"preset": "rwkv7"}, 9),
    # momentum
    ({"algorithm": "momentum", "retention": "l2"}, 18),
    ({"algorithm": "momentum", "bias": "kl", "retention": "l2"} | execution({"refined": 2}, at="decayed"), 8),
    ({"algorithm": "momentum", "bias": "logcosh"} | execution("exact"), 5),
    # keeps by key channel; chunks beyond a block of 16
    ({"preset": "gla"}, 17),
    ({"retention": BY_KEY}, 7),
    ({"bias": "logcosh", "retention": BY_KEY} | execution({"refined": 2}, 20, "decayed"), 20),
    ({"algorithm": {"multi_step": {"writes": 3}}, "retention": BY_KEY} | execution("frozen", 12, "decayed"), 12),
]  # fmt: skip
