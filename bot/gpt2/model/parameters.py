"""The model's parameters as arrays, read from the safetensors files a slice at a time.

Pictures of weights show the file's values in the file's precision, without a second copy in memory: the file is
memory-mapped, and only the requested slice becomes an array.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from safetensors import safe_open

from bot.gpt2.model_info import ParameterInfo
from bot.gpt2.parameter_names import PREFIX, ParameterNames

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from bot.gpt2.model_info import ParameterSlice

# dtypes of the safetensors format in PyTorch's names
_DTYPES: Final = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Stored(NamedTuple):
    """The location of a state-dict entry's values."""

    path: Path
    key: str
    dtype: str
    shape: tuple[int, ...]


class ParameterStore(ParameterNames):
    """The state dict of a model, whose values are read on demand."""

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        stored: Mapping[str, Stored],
        *,
        tied: Mapping[str, str],
        filled: Mapping[str, torch.Tensor],
    ) -> None:
        """Describe every entry.

        Args:
            shapes: Shapes of all entries, in the state dict's order.
            stored: The entries in files.
            tied: The entries that share the tensor of another, with its name.
            filled: The entries in no file, with the values from loading.
        """
        self._stored = stored
        self._tied = tied
        self._filled = filled
        super().__init__(self._describe(name, shape) for name, shape in shapes.items())

    def read(self, part: ParameterSlice) -> NDArray[np.float32]:
        """Return the values of a slice: float32, in its shape."""
        axes = (part.rows, part.columns)[: len(part.info.shape)]
        tensor = self._part(part.info.name, tuple(slice(axis.start, axis.stop) for axis in axes))
        values: NDArray[np.float32] = tensor.to(device="cpu", dtype=torch.float32).numpy()
        return values

    def tensor(self, name: str) -> torch.Tensor:
        """Return all values of an entry in the file's dtype: a view of the file, mapped as long as the tensor lives."""
        name = self._tied.get(name, name)
        if name not in self._stored:
            return self._filled[name]
        with safe_open(self._stored[name].path, framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(self._stored[name].key)
        return tensor

    def _part(self, name: str, window: tuple[slice, ...]) -> torch.Tensor:
        name = self._tied.get(name, name)
        if name not in self._stored:
            return self._filled[name][window]
        with safe_open(self._stored[name].path, framework="pt") as file:  # with torch, since numpy has no bfloat16
            part: torch.Tensor = file.get_slice(self._stored[name].key)[window]
        return part

    def _describe(self, name: str, shape: tuple[int, ...]) -> ParameterInfo:
        stored = self._stored.get(self._tied.get(name, name))
        return ParameterInfo(
            name=name,
            shape=shape,
            dtype=stored.dtype if stored else "float32",
            stored=stored is not None,
            tied_to=self._tied.get(name),
        )


def find_stored(weight_files: Sequence[Path], names: Collection[str]) -> dict[str, Stored]:
    """Return those of the state-dict entries `names` that a safetensors file holds.

    OpenAI's upload lacks Transformers' prefix ``transformer.`` in its keys.

    Raises:
        SafetensorError: A file is damaged.
        OSError: A file cannot be read.
    """
    found: dict[str, Stored] = {}
    for path in weight_files:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 # not a mapping
                name = key if key in names else PREFIX + key
                if name in names:
                    entry = file.get_slice(key)
                    dtype = entry.get_dtype()
                    found[name] = Stored(path, key, _DTYPES.get(dtype, dtype), tuple(entry.get_shape()))
    return found
