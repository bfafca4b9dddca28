"""Names and shapes of GPT-2's state dict, and sizes, derived from its config.

Transformers would have to build the model for them, and importing its classes takes 1.5 s and 120 MB. Tests compare
the result with Transformers'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import GPT2Config

    Entry = tuple[str, tuple[int, ...]]


def state_dict_shapes(config: GPT2Config) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every entry of `GPT2LMHeadModel(config).state_dict()`, in its order.

    Raises:
        ValueError: The config's numbers are inconsistent.
    """
    for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}")
    if config.n_embd % config.n_head:
        raise ValueError(f"n_embd, {config.n_embd}, cannot be divided by n_head, {config.n_head}")
    if config.n_inner is not None and config.n_inner < 1:
        raise ValueError(f"n_inner is {config.n_inner}")
    return dict(_entries(config))


def position_bytes(config: GPT2Config) -> int:
    """Return the bytes of a position's keys and values in all layers, in float32."""
    return int(2 * config.n_layer * config.n_embd * 4)


def _entries(config: GPT2Config) -> Iterator[Entry]:
    width = config.n_embd
    yield "transformer.wte.weight", (config.vocab_size, width)
    yield "transformer.wpe.weight", (config.n_positions, width)
    for layer in range(config.n_layer):
        yield from _block(f"transformer.h.{layer}.", config)
    yield from _norm("transformer.ln_f.", width)
    yield "lm_head.weight", (config.vocab_size, width)


def _block(prefix: str, config: GPT2Config) -> Iterator[Entry]:
    width, inner = config.n_embd, config.n_inner or 4 * config.n_embd
    yield from _norm(prefix + "ln_1.", width)
    yield from _conv1d(prefix + "attn.c_attn.", width, 3 * width)
    yield from _conv1d(prefix + "attn.c_proj.", width, width)
    yield from _norm(prefix + "ln_2.", width)
    if config.add_cross_attention:  # shown but not computed: there is no encoder here
        yield from _conv1d(prefix + "crossattention.c_attn.", width, 2 * width)
        yield from _conv1d(prefix + "crossattention.q_attn.", width, width)
        yield from _conv1d(prefix + "crossattention.c_proj.", width, width)
        yield from _norm(prefix + "ln_cross_attn.", width)
    yield from _conv1d(prefix + "mlp.c_fc.", width, inner)
    yield from _conv1d(prefix + "mlp.c_proj.", inner, width)


def _norm(prefix: str, width: int) -> Iterator[Entry]:
    yield prefix + "weight", (width,)
    yield prefix + "bias", (width,)


def _conv1d(prefix: str, inputs: int, outputs: int) -> Iterator[Entry]:
    yield prefix + "weight", (inputs, outputs)
    yield prefix + "bias", (outputs,)
