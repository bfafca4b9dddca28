"""The model's parameters as arrays, read from the safetensors files a slice at a time.

Pictures of weights show the file's values in the file's precision, without a second copy in memory: the file is
memory-mapped, and only the requested slice becomes an array. A file that has changed since it was loaded holds another
model, so it is not read.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from bot.errors import UnavailableError
from bot.gpt2.model_info import ParameterInfo
from bot.gpt2.parameter_names import PREFIX, ParameterNames
from bot.text import say

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bot.gpt2.model_info import ParameterSlice

# dtypes of the safetensors format in PyTorch's names
_DTYPES: Final = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
    "BOOL": "bool",
}
_OPEN_FILES: Final = Path("/proc/self/fd")  # Linux: names of open files, also of those that were removed
# Buffers of old versions of Transformers: the causal mask, which is computed today.
_BUFFERS: Final = (".attn.bias", ".attn.masked_bias", ".crossattention.bias", ".crossattention.masked_bias")


class Stored(NamedTuple):
    """The location of a state-dict entry's values."""

    path: Path
    key: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def floating(self) -> bool:
        """Return whether the values are floating-point numbers."""
        return self.dtype.lower().startswith(("f", "bf"))

    def load(self) -> torch.Tensor:
        """Return all values: a view of the file, mapped as long as the tensor lives."""
        with safe_open(self.path, framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(self.key)
        return tensor


class TemporaryWeights:
    """Values in a file that lasts as long as this object, as they need not stay in memory.

    Attributes:
        entries: Where they are, by their names.
    """

    def __init__(self, values: Mapping[str, torch.Tensor]) -> None:
        """Write the values.

        Raises:
            SafetensorError: The file cannot be written.
            OSError: The same.
        """
        folder = tempfile.TemporaryDirectory(prefix="gpt2-for-discord-")
        weakref.finalize(self, folder.cleanup)
        path = Path(folder.name) / "weights.safetensors"
        save_file(dict(values), path)
        if _OPEN_FILES.is_dir():  # then nothing is left behind, however the process ends
            file = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, file)
            folder.cleanup()
            path = _OPEN_FILES / str(file)
        self.entries = {
            name: Stored(path, name, str(each.dtype).removeprefix("torch."), tuple(each.shape))
            for name, each in values.items()
        }


class FileState(NamedTuple):
    """The size and the time of a file, which change with its content."""

    size: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> FileState | None:
        """Return the state of a file, or None if it is gone."""
        try:
            found = path.stat()
        except OSError:
            return None
        return cls(found.st_size, found.st_mtime_ns)


class ParameterStore(ParameterNames):
    """The state dict of a model, whose values are read on demand."""

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        stored: Mapping[str, Stored],
        *,
        tied: Mapping[str, str],
        filled: TemporaryWeights | None = None,
    ) -> None:
        """Describe every entry.

        Args:
            shapes: Shapes of all entries, in the state dict's order.
            stored: The entries in files.
            tied: The entries that share the tensor of another, with its name.
            filled: The entries that the model's files lack; None if there are none.
        """
        self._filled = filled
        self._entries = {**stored, **(filled.entries if filled else {})}
        self._tied = tied
        self._states = {path: FileState.of(path) for path in {entry.path for entry in self._entries.values()}}
        super().__init__(self._describe(name, shape) for name, shape in shapes.items())

    @property
    def changed(self) -> bool:
        """Return whether a file is not as it was when this store was made."""
        return any(FileState.of(path) != state for path, state in self._states.items())

    def read(self, part: ParameterSlice) -> NDArray[np.float32]:
        """Return the values of a slice: float32, in its shape.

        Raises:
            UnavailableError: The file has changed.
        """
        axes = (part.rows, part.columns)[: len(part.info.shape)]
        if self.changed:  # before the mapping is read: beyond the end of a shorter file there is no memory
            raise _file_changed()
        try:
            tensor = self._part(part.info.name, tuple(slice(axis.start, axis.stop) for axis in axes))
            # Always a copy: the drawing must not depend on the file.
            values: NDArray[np.float32] = tensor.to(device="cpu", dtype=torch.float32, copy=True).numpy()
        except (OSError, SafetensorError):
            if self.changed:
                raise _file_changed() from None
            raise
        if self.changed:
            raise _file_changed()
        return values

    def tensor(self, name: str) -> torch.Tensor:
        """Return all values of an entry in the file's dtype: a view of the file, mapped as long as the tensor lives."""
        return self._entries[self._tied.get(name, name)].load()

    def _part(self, name: str, window: tuple[slice, ...]) -> torch.Tensor:
        entry = self._entries[self._tied.get(name, name)]
        with safe_open(entry.path, framework="pt") as file:  # with torch, since numpy has no bfloat16
            part: torch.Tensor = file.get_slice(entry.key)[window]
        return part

    def _describe(self, name: str, shape: tuple[int, ...]) -> ParameterInfo:
        held = self._tied.get(name, name)
        return ParameterInfo(
            name=name,
            shape=shape,
            dtype=self._entries[held].dtype,
            stored=self._filled is None or held not in self._filled.entries,
            tied_to=self._tied.get(name),
        )


def _file_changed() -> UnavailableError:
    return UnavailableError(
        say(
            "The model's file has changed since I loaded it, so I can't draw its weights. I still write with the model "
            "that I loaded; my operator can restart me to load the new one."
        )
    )


class Checkpoint(NamedTuple):
    """The content of safetensors files.

    Attributes:
        stored: The state-dict entries that they hold.
        unknown: Keys of tensors that are no entries, without old versions' buffers.
    """

    stored: dict[str, Stored]
    unknown: tuple[str, ...]


def read_checkpoint(weight_files: Iterable[Path], names: Collection[str]) -> Checkpoint:
    """List the tensors of safetensors files, by their names in a state dict of the entries `names`.

    Raises:
        SafetensorError: A file is damaged.
        OSError: A file cannot be read.
    """
    found: dict[str, Stored] = {}
    unknown = []
    for path in weight_files:
        with safe_open(path, framework="pt") as file:
            for key in sorted(file.keys()):  # of two keys for one entry, Transformers takes the first
                name = entry_name(key, names)
                if name is not None:
                    entry = file.get_slice(key)
                    dtype = entry.get_dtype()
                    found.setdefault(name, Stored(path, key, _DTYPES.get(dtype, dtype), tuple(entry.get_shape())))
                elif not key.endswith(_BUFFERS):
                    unknown.append(key)
    return Checkpoint(found, tuple(unknown))


def entry_name(key: str, names: Collection[str]) -> str | None:
    """Return the state-dict entry that a file's key stands for, or None.

    As `rename_source_key` (transformers/core_model_loading.py), it removes or adds the prefix ``transformer.``, which
    OpenAI's upload lacks.
    """
    if key.startswith(PREFIX) and key.removeprefix(PREFIX) in names:
        return key.removeprefix(PREFIX)
    return next((name for name in (PREFIX + key, key) if name in names), None)


def surplus_prefix(keys: Sequence[str], names: Collection[str]) -> str:
    """Return the prefix without which all keys would be entries; empty if there is none.

    ``torch.compile`` adds ``_orig_mod.``, for example, and ``DataParallel`` ``module.``.
    """
    parts = keys[0].split(".") if keys else []
    for count in range(1, len(parts)):
        prefix = ".".join(parts[:count]) + "."
        if all(key.startswith(prefix) and entry_name(key.removeprefix(prefix), names) for key in keys):
            return prefix
    return ""
