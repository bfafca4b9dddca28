"""A copy of GPT-2 with 8-bit weights, which is mostly right and reads a quarter of the memory.

It is a graph of ONNX Runtime, whose `MatMulNBits` multiplies 8-bit integers: each block of a few inputs of an output
has a scale of its own, and so has each block of an activation. A pass is one call, without PyTorch's and Python's time
for each of its 300 operations, which would be half of it. Keys and values are read where the exact model keeps them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper
from torch.nn import functional

from bot.gpt2.model.attention import query_scales

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bot.gpt2.model.transformer import Norm, Transformer

_BLOCK: Final = 128  # inputs that share a scale; with fewer the product is slower
_HEAD_BLOCK: Final = 32  # of the output matrix, in which most wrong tokens have their cause
_INT8_MAX: Final = 127
_ZERO: Final = 128  # the integer for 0
_INT8_PRODUCTS: Final = 4  # the operator's `accuracy_level` in which activations are rounded, too
_CHUNK: Final = 1024  # rows that are quantized at once
_SPREAD: Final = 3.0
_TINY: Final = 1e-8
_CONTRIB: Final = "com.microsoft"  # the domain of ONNX Runtime's own operators
_OPSET: Final = 21
_IR_VERSION: Final = 10
_ERRORS_ONLY: Final = 3

_ACTIVATIONS: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "gelu": ("Gelu", "", {}),
    "gelu_fast": ("FastGelu", _CONTRIB, {}),
    "gelu_new": ("FastGelu", _CONTRIB, {}),
    "gelu_python": ("Gelu", "", {}),
    "gelu_pytorch_tanh": ("FastGelu", _CONTRIB, {}),
    "leaky_relu": ("LeakyRelu", "", {"alpha": 0.01}),
    "mish": ("Mish", "", {}),
    "quick_gelu": ("QuickGelu", _CONTRIB, {"alpha": 1.702}),
    "relu": ("Relu", "", {}),
    "sigmoid": ("Sigmoid", "", {}),
    "silu": ("QuickGelu", _CONTRIB, {"alpha": 1.0}),
    "swish": ("QuickGelu", _CONTRIB, {"alpha": 1.0}),
    "tanh": ("Tanh", "", {}),
}
"""Operator, domain and attributes by Transformers' names of activations."""


class DraftModel:
    """The copy of a model, and its forward pass for single positions of several sequences."""

    def __init__(self, transformer: Transformer, threads: int) -> None:
        """Copy a model.

        Args:
            transformer: On the CPU.
            threads: With which the copy computes.

        Raises:
            ValueError: The model's activation is unknown here.
            Exception: ONNX Runtime cannot compute the graph; its errors have no other class in common.
        """
        self._transformer = transformer
        config = transformer.config
        self._heads = (-1, config.n_head, config.n_embd // config.n_head)
        graph = _Graph()
        graph.add_model(transformer)
        self._session = graph.session(threads)

    def __call__(
        self,
        tokens: NDArray[np.int64],
        positions: NDArray[np.int64],
        past: NDArray[np.float32],
        seen: NDArray[np.bool_],
    ) -> tuple[torch.Tensor, NDArray[np.float32]]:
        """Compute rows, each of which sees itself and some earlier positions.

        Args:
            tokens: [rows].
            positions: [rows].
            past: Keys and values of earlier positions, [layers, 2, places, d].
            seen: Which places each row sees, [rows, places].

        Returns:
            Logits, float32 [rows, vocabulary], and the rows' own keys and values, [layers, 2, rows, d].
        """
        rows, places = seen.shape
        mask = np.full((rows, places + rows), -np.inf, np.float32)
        mask[:, :places][seen] = 0
        np.fill_diagonal(mask[:, places:], 0)
        embedded = self._transformer.embed(torch.from_numpy(tokens), torch.from_numpy(positions))
        inputs = {"x": embedded.numpy(), "mask": mask}
        for layer, (keys, values) in enumerate(past):
            inputs[f"keys_{layer}"] = keys.reshape(self._heads)
            inputs[f"values_{layer}"] = values.reshape(self._heads)
        logits, keys_values = self._session.run(None, inputs)
        return torch.from_numpy(logits), keys_values.reshape(len(past), 2, rows, -1)


class _Graph:
    """The graph of a model's forward pass while it is built; names of values are made from a running number."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._weights: dict[str, onnxruntime.OrtValue] = {}
        self._number = 0

    def add_model(self, transformer: Transformer) -> None:
        """Add the forward pass of `DraftModel`."""
        config = transformer.config
        size = config.n_embd // config.n_head
        mask = self._input("mask", "rows", "keys")
        x = self._input("x", "rows", config.n_embd)
        places = ""
        keys_values = []
        for layer, scale in enumerate(query_scales(config)):
            prefix = f"transformer.h.{layer}."
            past = [self._input(f"{name}_{layer}", "places", config.n_head, size) for name in ("keys", "values")]
            places = places or self._add("Shape", past[0], start=0, end=1)
            normalized = self._norm(x, transformer.norm(f"{prefix}ln_1."))
            projected = self._conv1d(normalized, transformer, f"{prefix}attn.c_attn")
            queries, *own = self._split(self._reshape(projected, -1, 3 * config.n_head, size), config.n_head)
            keys_values += own
            attended = self._reshape(self._attend(queries, own, past, places, mask, scale), -1, config.n_embd)
            x = self._add("Add", x, self._conv1d(attended, transformer, f"{prefix}attn.c_proj"))
            normalized = self._norm(x, transformer.norm(f"{prefix}ln_2."))
            inner = self._activation(self._conv1d(normalized, transformer, f"{prefix}mlp.c_fc"), transformer)
            x = self._add("Add", x, self._conv1d(inner, transformer, f"{prefix}mlp.c_proj"))
        weight, norm = transformer.matrix("lm_head.weight"), transformer.norm("transformer.ln_f.")
        factors = shared_range(norm, weight)
        normalized = self._norm(x, norm.scaled(1 / factors))
        self._output("logits", self._linear(normalized, weight, None, _HEAD_BLOCK, factors))
        self._output("keys_values", self._add("Concat", *keys_values, axis=0))

    def session(self, threads: int) -> onnxruntime.InferenceSession:
        """Return a session that computes the graph."""
        graph = helper.make_graph(self._nodes, "gpt2", self._inputs, self._outputs, self._constants)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        onnxruntime.disable_telemetry_events()  # nothing reports usage, on Windows neither
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _ERRORS_ONLY
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False  # it would remember every combination of rows and places
        # Or else its threads would take the cores from the exact pass that follows.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_external_initializers(list(self._weights), list(self._weights.values()))
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def _attend(self, queries: str, own: list[str], past: list[str], places: str, mask: str, scale: float) -> str:
        """Add attention to the past and to the rows' own keys and values, which need not be joined for it."""
        scores = [self._product(queries, keys, alpha=scale, transB=1, transBatchA=1) for keys in (past[0], own[0])]
        weights = self._add("Softmax", self._add("Add", self._add("Concat", *scores, axis=2), mask), axis=-1)
        begin, end, axis = (self._integers(number) for number in (0, np.iinfo(np.int64).max, 2))
        parts = (self._add("Slice", weights, begin, places, axis), self._add("Slice", weights, places, end, axis))
        outputs = [self._product(part, values) for part, values in zip(parts, (past[1], own[1]), strict=True)]
        return self._add("Transpose", self._add("Add", *outputs), perm=[1, 0, 2])

    def _conv1d(self, x: str, transformer: Transformer, name: str) -> str:
        # Transformers' Conv1D keeps its weight as [in, out].
        weight, bias = transformer.matrix(f"{name}.weight").t(), transformer.vector(f"{name}.bias")
        return self._linear(x, weight, bias, _BLOCK)

    def _linear(
        self,
        x: str,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        block: int,
        factors: torch.Tensor | None = None,
    ) -> str:
        integers, scales = quantize(weight, block, factors)
        inputs = [x, self._weight(integers), self._weight(scales)]
        inputs += ["", "", self._constant(bias.numpy())] if bias is not None else []
        out, inner = weight.shape
        return self._add(
            "MatMulNBits",
            *inputs,
            domain=_CONTRIB,
            N=out,
            K=inner,
            bits=8,
            block_size=block,
            accuracy_level=_INT8_PRODUCTS,
        )

    def _norm(self, x: str, norm: Norm) -> str:
        weight, bias = self._constant(norm.weight.numpy()), self._constant(norm.bias.numpy())
        return self._add("LayerNormalization", x, weight, bias, axis=-1, epsilon=norm.epsilon)

    def _activation(self, x: str, transformer: Transformer) -> str:
        name = transformer.config.activation_function
        if name not in _ACTIVATIONS:
            raise ValueError(f"the copy has no activation_function {name!r}")
        operator, domain, attributes = _ACTIVATIONS[name]
        return self._add(operator, x, domain=domain, **attributes)

    def _product(self, first: str, second: str, **attributes: float) -> str:
        """Add a product in which `transBatch` swaps the first two dimensions: rows or places, and heads."""
        return self._add("FusedMatMul", first, second, domain=_CONTRIB, transBatchB=1, **attributes)

    def _split(self, x: str, width: int) -> list[str]:
        outputs = [self._name() for _ in range(3)]
        self._nodes.append(helper.make_node("Split", [x, self._integers(width, width, width)], outputs, axis=1))
        return outputs

    def _reshape(self, x: str, *shape: int) -> str:
        return self._add("Reshape", x, self._integers(*shape))

    def _add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        output = self._name()
        self._nodes.append(helper.make_node(operator, inputs, [output], domain=domain, **attributes))
        return output

    def _input(self, name: str, *shape: int | str) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
        return name

    def _output(self, name: str, value: str) -> None:
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))

    def _integers(self, *numbers: int) -> str:
        return self._constant(np.array(numbers, np.int64))

    def _constant(self, values: NDArray[Any]) -> str:
        name = self._name()
        self._constants.append(numpy_helper.from_array(values, name))
        return name

    def _weight(self, values: NDArray[Any]) -> str:
        """Add a weight that stays outside the graph, which would be copied several times."""
        name = self._name()
        weight = onnx.TensorProto(
            name=name,
            data_type=helper.np_dtype_to_tensor_dtype(values.dtype),
            dims=values.shape,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        weight.external_data.add(key="location", value=name)
        self._constants.append(weight)
        self._weights[name] = onnxruntime.OrtValue.ortvalue_from_numpy(values)
        return name

    def _name(self) -> str:
        self._number += 1
        return str(self._number)


def quantize(
    weight: torch.Tensor, block: int, factors: torch.Tensor | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Round a matrix to 8-bit integers.

    Args:
        weight: float32 [out, in].
        block: How many inputs share a scale.
        factors: By which the inputs' weights are multiplied before, float32 [in]; None is by 1.

    Returns:
        Integers [out, blocks, block], of which 128 are subtracted, and their scales [out, blocks].
    """
    out, inner = weight.shape
    shape = (out, math.ceil(inner / block), block)
    integers, scales = np.empty(shape, np.uint8), np.empty(shape[:2], np.float32)
    for begin in range(0, out, _CHUNK):  # not all at once, which would take several times the memory
        rows = slice(begin, begin + _CHUNK)
        part = weight[rows] if factors is None else weight[rows] * factors
        part = functional.pad(part, (0, -inner % block)).view(-1, *shape[1:])
        scale = (part.abs().amax(dim=2) / _INT8_MAX).clamp_(min=torch.finfo(torch.float32).tiny)
        integers[rows] = (part / scale.unsqueeze(2)).round_().add_(_ZERO).to(torch.uint8).numpy()
        scales[rows] = scale.numpy()
    return integers, scales


def shared_range(norm: Norm, weight: torch.Tensor) -> torch.Tensor:
    """Return what to divide a norm's outputs by, and multiply a matrix's inputs by, so that 8 bits fit both.

    A few of GPT-2's dimensions are a hundred times as large as the others after its last norm, and decide how coarsely
    all are rounded. SmoothQuant (Xiao et al. 2023) shares the range between activations and weights; a norm's outputs
    need no calibration, as they hardly exceed `_SPREAD` standard deviations.

    Args:
        norm: Before the matrix.
        weight: float32 [out, d].

    Returns:
        float32 [d], positive.
    """
    outputs = _SPREAD * norm.weight.abs() + norm.bias.abs()
    largest = torch.maximum(weight.amax(dim=0), -weight.amin(dim=0))  # ten times as fast as `aminmax`
    ratio = outputs.clamp(min=_TINY) / largest.clamp(min=_TINY)
    return ratio.sqrt()
