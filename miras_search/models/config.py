"""The shape of a model around its memory layers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, final

from miras_search.space.fields import Plain, require, setting, to_plain

FeatureMap = Literal["none", "elu1", "silu", "softmax", "relu", "dpfp"]
QkNorm = Literal["l2", "rms", "none"]
DPFP_NU = 3  # shifts of the DPFP feature map, as its authors have it
NON_NEGATIVE = ("elu1", "softmax", "relu", "dpfp")  # feature maps whose q.k is never below 0
WINDOW = 32  # half of the default task's sequence, the share that Samba's 2048 is of its 4096
NORM_EPS = 1e-5
YOUNGER = ("norm_eps", "attention_every", "attention_window")  # settings that stored studies may not have


@final
@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A small language model; what is compared lives in the design point, not here."""

    layers: int = setting(2, "blocks")
    d_model: int = setting(32, "width of the residual stream")
    heads: int = setting(2, "memories a layer")
    key_dim: int | None = setting(None, "key dimension a head before the feature map; none: d_model / heads")
    value_dim: int | None = setting(None, "value dimension a head; none: d_model / heads")
    conv: int = setting(4, "width of the causal depthwise convolution on q, k, v; 0: none")
    activation: Literal["silu", "none"] = setting(
        "silu", "of q, k, v after the convolution; on q and k a feature map takes its place"
    )
    feature_map: FeatureMap = setting(
        "none",
        "of q and k before they are normalised: elu(x) + 1, SiLU, softmax or ReLU over a head's channels, or DPFP, the "
        "products of relu(x), relu(-x) with themselves shifted by 1 to 3, which is 6 times as wide; none: activation",
    )
    qk_norm: QkNorm = setting(
        "l2",
        "length of q and k: 1 (l2), sqrt(key dimension) (rms) or as they come (none); "
        "a delta rule is stable while step * |k|^2 < 2",
    )
    rope: bool = setting(False, "turn q and k by their position after that (rotary, base 10000); even key dimension")
    normaliser: Literal["none", "sum"] = setting(
        "none",
        "divide a read by q.z, z the sum of keys weighted as the values are (linear attention's normaliser), from an "
        "empty memory; needs non-negative features and a matrix memory with the dot bias",
    )
    output_norm: Literal["rms", "none"] = setting("rms", "of the memory's output a head, with a trained scale")
    norm_eps: float = setting(NORM_EPS, "added to the mean square under that norm's root; only with output_norm: rms")
    output_gate: bool = setting(True, "multiply the memory's output by SiLU of a projection of the input")
    feed_forward: Literal["none", "swiglu"] = setting("none", "channel mixer after each memory layer")
    feed_forward_ratio: float = setting(2.0, "hidden width of the channel mixer as a multiple of d_model")
    tie_embeddings: bool = setting(False, "use the embedding as the output head")
    init_scale: float = setting(
        1.0, "multiplies the standard deviation 1/sqrt(fan in) of every projection at the start"
    )
    attention_every: int = setting(
        0,
        "a hybrid: every so many layers one is softmax attention in place of the memory (2: they alternate), which no "
        "axis, control or matched step of the study touches; 0: none",
    )
    attention_window: int = setting(
        WINDOW,
        "the last tokens that such a layer attends to; Samba and Gated DeltaNet's hybrids have 2048, which is longer "
        "than most tasks here, so that a layer would see everything",
    )

    def __post_init__(self) -> None:
        for field in ("layers", "d_model", "heads"):
            require(getattr(self, field) >= 1, field, f"{getattr(self, field)} must be at least 1")
        for field in ("key_dim", "value_dim"):
            width = getattr(self, field)
            require(width is None or width >= 1, field, f"{width} must be at least 1")
            divides = width is not None or self.d_model % self.heads == 0
            require(
                divides, "heads", f"d_model {self.d_model} is not a multiple of {self.heads} heads: set {field} too"
            )
        self._check_features()
        require(0 <= self.conv <= 64, "conv", f"{self.conv} is not between 0 (none) and 64")
        require(self.feed_forward_ratio > 0, "feed_forward_ratio", f"{self.feed_forward_ratio:g} must be positive")
        require(self.init_scale > 0, "init_scale", f"{self.init_scale:g} must be positive")
        require(0 < self.norm_eps < math.inf, "norm_eps", f"{self.norm_eps:g} must be positive and finite")
        self._check_attention()

    def _check_features(self) -> None:
        even = self.memory_keys % 2 == 0
        require(
            even or not self.rope,
            "rope",
            f"channels are turned in pairs and the key dimension {self.keys} is odd: set key_dim to an even number",
        )
        positive = self.normaliser == "none" or self.feature_map in NON_NEGATIVE
        known = ", ".join(NON_NEGATIVE)
        require(
            positive,
            "normaliser",
            f"q.z is a sum of weights only where no feature is negative: set feature_map to one of {known}",
        )
        unturned = self.normaliser == "none" or not self.rope
        require(unturned, "normaliser", "a turned feature can be negative and q.z near 0: set rope: false")

    def _check_attention(self) -> None:
        every = self.attention_every
        require(every >= 0, "attention_every", f"{every} must be 0 (no attention layers) or more")
        require(every != 1, "attention_every", "1 leaves no memory layer: base a study on the preset sliding_window")
        enough = every <= self.layers
        require(enough, "attention_every", f"{every} is more than {self.layers} layers: set layers to {every} or more")
        turned = every == 0 or self.keys % 2 == 0
        require(
            turned,
            "attention_every",
            f"attention turns channels in pairs, the key dimension {self.keys} is odd: set key_dim to an even number",
        )
        window = self.attention_window
        require(window >= 1, "attention_window", f"{window} must be at least 1")

    def to_plain(self) -> dict[str, Plain]:
        """Every setting as plain data, but those that are younger than stored studies only where they say something."""
        usual = to_plain(ModelConfig())
        return {name: x for name, x in to_plain(self).items() if name not in YOUNGER or x != usual[name]}

    def canonical(self) -> ModelConfig:
        """The simplest spelling of the same model: two spellings of one model become equal."""
        same = self.feature_map == self.activation == "silu"
        return replace(
            self,
            key_dim=self.keys,
            value_dim=self.values,
            feature_map="none" if same else self.feature_map,
            norm_eps=NORM_EPS if self.output_norm == "none" else self.norm_eps,
            feed_forward_ratio=2.0 if self.feed_forward == "none" else self.feed_forward_ratio,
            attention_window=self.attention_window if self.attention_every else WINDOW,
        )

    @property
    def keys(self) -> int:
        """Key dimension a head, before the feature map."""
        return self.key_dim or self.d_model // self.heads

    @property
    def memory_keys(self) -> int:
        """Key dimension a head that the memory sees."""
        return 2 * DPFP_NU * self.keys if self.feature_map == "dpfp" else self.keys

    @property
    def values(self) -> int:
        """Value dimension a head."""
        return self.value_dim or self.d_model // self.heads
