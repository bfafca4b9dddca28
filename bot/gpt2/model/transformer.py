"""GPT-2's forward pass over rows of any requests; the caller attends, with each request's own KV cache.

The arithmetic is that of Transformers' `GPT2LMHeadModel` in float32, whatever the precision of the stored weights. A
row is one position of one sequence. Rows of many requests share the matrix products, and `bot.gpt2.model.linear` keeps
them independent of each other.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from bot.gpt2.model import kernels
from bot.gpt2.model.linear import (
    DTYPES,
    CudaLinear,
    Linear,
    gelu_new,
    make_linear,
    packed_rows,
    packs,
    padded_rows,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transformers import GPT2Config

    from bot.config import Precision
    from bot.gpt2.model.linear import Activation, PackedRows

    Read = Callable[[str], torch.Tensor]
    Attend = Callable[[int, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Norm:
    """Layer normalisation over the last dimension."""

    weight: torch.Tensor
    bias: torch.Tensor
    epsilon: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize [rows, d]."""
        if x.is_cuda and len(self.weight) <= kernels.NORM_LIMIT and (compiled := kernels.compiled()):
            return compiled.layer_norm(x.contiguous(), self.weight, self.bias, self.epsilon)
        return torch.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)

    def scaled(self, factors: torch.Tensor) -> Norm:
        """Return a norm whose outputs are multiplied by `factors` [d]."""
        return replace(self, weight=self.weight * factors, bias=self.bias * factors)


@dataclass(frozen=True, slots=True)
class Block:
    """One layer: attention and MLP, each after a norm and added to the residual stream."""

    ln_1: Norm
    c_attn: Linear  # d → 3d: queries, keys, values
    attn_c_proj: Linear
    ln_2: Norm
    c_fc: Linear  # and the activation
    mlp_c_proj: Linear


class Transformer:
    """The weights of GPT-2 and its forward pass.

    Attributes:
        config: Transformers' configuration of the model.
        device: Device of the weights.
        precision: Of the stored matrices.
    """

    def __init__(
        self,
        config: GPT2Config,
        read: Read,
        device: torch.device,
        precision: Precision = "float32",
        *,
        lasting: bool = False,
    ) -> None:
        """Build from the tensors that `read` returns for their state-dict names, in any dtype and on any device.

        Tensors are read, converted and packed one by one, the largest first, so that loading never holds much more
        than the final weights. Of a token embedding that is the output matrix, too, nothing is kept beside that.

        Args:
            config: Transformers' configuration of the model.
            read: Returns a parameter; it may be mapped from a file.
            device: Of the weights.
            precision: Of the stored matrices.
            lasting: Whether a file mapped by `read` stays as it is, so that a token embedding may stay there.

        Raises:
            ValueError: A parameter holds NaN or infinity.
        """
        self.config = config
        self.device = device
        self._activation = make_activation(config.activation_function)
        self._pads = packs(device, precision) and precision == "float32"  # FBGEMM's products gain nothing by it
        self._read = read
        self.precision: Precision = precision
        embedding = self._embedding("transformer.wte.weight")
        self._lm_head = make_linear(self.matrix("lm_head.weight"), None, precision)
        self._wte = self._kept(embedding, lasting=lasting)
        self._blocks = [self._block(f"transformer.h.{layer}.") for layer in range(config.n_layer)]
        self._ln_f = self.norm("transformer.ln_f.")
        self._wpe = self.vector("transformer.wpe.weight")

    def embed(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Return the sum of the embeddings of tokens and of positions, int64 [rows] each: float32 [rows, d]."""
        return self._wte[tokens].float() + self._wpe[positions]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map the final residual stream [rows, d] to logits, float32 [rows, vocabulary]."""
        return self._lm_head(self._ln_f(hidden))

    def hidden(self, tokens: torch.Tensor, positions: torch.Tensor, attend: Attend) -> torch.Tensor:
        """Compute the residual stream after the last block: float32 [rows, d].

        Args:
            tokens: int64 [rows].
            positions: int64 [rows].
            attend: Maps a layer's index and its queries, keys and values [rows, 3d] to the heads' outputs [rows, d],
                before the output projection.
        """
        return deque(self.residuals(tokens, positions, attend), maxlen=1).pop()

    def residuals(self, tokens: torch.Tensor, positions: torch.Tensor, attend: Attend) -> Iterator[torch.Tensor]:
        """Yield the residual stream after the embeddings, then after each block: float32 [rows, d] each.

        Each block is computed on demand, so a consumer can stop at any layer.

        Args:
            tokens: int64 [rows].
            positions: int64 [rows].
            attend: As for `hidden`.
        """
        x = self.embed(tokens, positions)
        rows = len(x)
        padding = padded_rows(rows) - rows if self._pads else 0
        if padding:  # once, and not in every product
            x = functional.pad(x, (0, 0, 0, padding))
            attend = functools.partial(_attend_unpadded, attend, rows, x[rows:])
        for layer, block in enumerate(self._blocks):
            yield x[:rows] if padding else x
            x = block.attn_c_proj(attend(layer, block.c_attn(block.ln_1(x))), x)
            x = block.mlp_c_proj(block.c_fc(block.ln_2(x)), x)
        yield x[:rows] if padding else x

    def norm(self, prefix: str) -> Norm:
        """Read a norm by the beginning of its state-dict names."""
        return Norm(self.vector(prefix + "weight"), self.vector(prefix + "bias"), self.config.layer_norm_epsilon)

    def matrix(self, name: str) -> torch.Tensor:
        """Read a matrix by its state-dict name: float32 as stored, not to be written to.

        Raises:
            ValueError: It holds NaN or infinity.
        """
        # No copy if avoidable: packing makes one.
        copy = not packs(self.device, self.precision)
        return _finite(name, self._read(name).to(self.device, torch.float32, copy=copy))

    def vector(self, name: str) -> torch.Tensor:
        """Read a vector, or the position embedding, by its state-dict name: float32.

        Raises:
            ValueError: It holds NaN or infinity.
        """
        return _finite(name, self._read(name).to(self.device, torch.float32, copy=True))

    def _block(self, prefix: str) -> Block:
        return Block(
            ln_1=self.norm(prefix + "ln_1."),
            c_attn=self._conv1d(prefix + "attn.c_attn."),
            attn_c_proj=self._conv1d(prefix + "attn.c_proj."),
            ln_2=self.norm(prefix + "ln_2."),
            c_fc=self._conv1d(prefix + "mlp.c_fc.", self._activation),
            mlp_c_proj=self._conv1d(prefix + "mlp.c_proj."),
        )

    def _conv1d(self, prefix: str, activation: Activation | None = None) -> Linear:
        # Transformers' Conv1D keeps its weight as [in, out].
        weight, bias = self.matrix(prefix + "weight").t(), self.vector(prefix + "bias")
        return make_linear(weight, bias, self.precision, activation)

    def _embedding(self, name: str) -> torch.Tensor:
        values = self._read(name)
        if self.device.type != "cpu":
            return _finite(name, values.to(self.device, torch.float32)).to(DTYPES[self.precision])
        if values.dtype.itemsize == 1:  # float8 has no arithmetic
            values = values.float()
        return _finite(name, values)

    def _kept(self, embedding: torch.Tensor, *, lasting: bool) -> torch.Tensor | PackedRows:
        """Return the rows of the token embedding: those of the output matrix if they are the same."""
        if isinstance(self._lm_head, CudaLinear):
            return self._lm_head.weight if torch.equal(self._lm_head.weight, embedding) else embedding
        rows = packed_rows(self._lm_head, embedding)
        if rows is not None:
            return rows
        return embedding if lasting else embedding.clone()


def _attend_unpadded(attend: Attend, rows: int, padding: torch.Tensor, layer: int, qkv: torch.Tensor) -> torch.Tensor:
    """Attend with the first rows, and pad the outputs again."""
    return torch.cat((attend(layer, qkv[:rows]), padding))


def _finite(name: str, values: torch.Tensor) -> torch.Tensor:
    """Return the values, having checked them in a single pass without a copy.

    Raises:
        ValueError: There is NaN or infinity among them.
    """
    low, high = torch.aminmax(values)  # NaN if there is one
    if not (math.isfinite(low.item()) and math.isfinite(high.item())):
        raise ValueError(f"{name} holds NaN or infinity, so it is damaged or its training failed")
    return values


def make_activation(name: str) -> Activation:
    """Return Transformers' activation of this name.

    Raises:
        ValueError: Unknown activation.
    """
    if name == "gelu_new":
        return gelu_new
    from transformers.activations import ACT2FN  # noqa: PLC0415 # takes a second, and OpenAI's models do not need it

    if name not in ACT2FN:
        raise ValueError(f"activation_function is {name!r}")
    chosen: Activation = ACT2FN[name]
    return chosen
