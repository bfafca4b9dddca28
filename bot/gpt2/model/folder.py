"""The files that a model's folder or repository must have, and sentences for those that hold something else."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from bot.errors import ModelInvalidError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
WEIGHTS_INDEX: Final = "model.safetensors.index.json"
TOKENIZER: Final = "tokenizer.json"
VOCABULARY: Final = ("vocab.json", "merges.txt")  # of GPT-2's own tokenizer
WORDPIECE_VOCABULARY: Final = "vocab.txt"  # of a BERT tokenizer, as many Chinese GPT-2s have
GENERATION_CONFIG: Final = "generation_config.json"
_ADAPTER: Final = "adapter_config.json"
_OPTIONAL: Final = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", GENERATION_CONFIG)
_READ: Final = (CONFIG, WEIGHTS_INDEX, TOKENIZER, *VOCABULARY, WORDPIECE_VOCABULARY, *_OPTIONAL)
_IMPOSTORS: Final = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run `git lfs pull` where it was cloned",
    b"<!doctype html": "a web page, not the file itself: download it again, for example with `hf download`",
    b"<html": "a web page, not the file itself: download it again, for example with `hf download`",
}


def check_complete(folder: Path) -> None:
    """Raise ModelInvalidError unless the folder holds a config, safetensors weights and a tokenizer."""
    try:
        present = frozenset(_listed(folder))
        _check_content(folder, present)
    except OSError as error:
        raise ModelInvalidError(f"The model folder {folder} cannot be read: {error}") from error
    found = fault(present)
    if found:
        raise ModelInvalidError(f"The model folder {folder} {found}")
    for file in weight_files(folder):
        if not file.is_file():
            raise ModelInvalidError(f"The model folder {folder} has no {file.name}, which {WEIGHTS_INDEX} names.")


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the safetensors files of a model, several if it is sharded.

    Raises:
        ModelInvalidError: The index of the shards is damaged or names a file outside the folder.
    """
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    return tuple(folder / shard for shard in shards(folder / WEIGHTS_INDEX))


def fingerprint(folder: Path) -> str:
    """Return an identifier of these weights, from each file's path, size and time instead of its gigabytes of content.

    Files in the hub's cache are links to files that are named after their content.
    """
    states = [(file.resolve(), file.stat()) for file in weight_files(folder)]
    described = [(str(path), state.st_size, state.st_mtime_ns) for path, state in states]
    return hashlib.sha256(repr(described).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def shards(index: Path) -> tuple[str, ...]:
    """Return the names of the weight files that an index lists.

    Raises:
        ModelInvalidError: The index is damaged or names a file outside its folder.
    """
    try:
        names = list(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelInvalidError(f"{index} is damaged: {error!r}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelInvalidError(f"{index} names {name!r}, which is no safetensors file beside it.")
    if not names:
        raise ModelInvalidError(f"{index} names no file.")
    return tuple(sorted(set(names)))


def fault(present: Collection[str]) -> str | None:
    """Return what a model with these files lacks, as the end of a sentence, or None if it is complete.

    Args:
        present: Paths in the folder or repository, with "/" between their parts.
    """
    if not any(not name.startswith(".") for name in present):
        return f"is empty: it has no {CONFIG}."
    has_weights = WEIGHTS in present or WEIGHTS_INDEX in present
    if _ADAPTER in present and not (CONFIG in present and has_weights):
        return (
            "holds a LoRA adapter, which is only a change to another model: merge the two with PEFT's "
            "merge_and_unload, save the result and its tokenizer to a folder, and name that."
        )
    if CONFIG not in present:
        return f"has no {CONFIG}.{_below(present)}"
    if not has_weights:
        return f"has no {WEIGHTS}.{_below(present) or _other_weights(present)}"
    if TOKENIZER not in present and not _vocabulary(present):
        return f"has neither {TOKENIZER} nor {' and '.join(VOCABULARY)}.{_other_tokenizer(present)}"
    return None


def beside_config(present: Collection[str]) -> Iterator[str]:
    """Yield the files to fetch from a complete repository, besides config and shards."""
    yield from (file for file in _OPTIONAL if file in present)
    yield from (TOKENIZER,) if TOKENIZER in present else _vocabulary(present)
    yield WEIGHTS if WEIGHTS in present else WEIGHTS_INDEX


def _listed(folder: Path) -> Iterator[str]:
    """Yield the names in a folder, and the paths of configs in the folders below it."""
    yield from (path.name for path in folder.iterdir())
    for pattern in (f"*/{CONFIG}", f"snapshots/*/{CONFIG}"):
        yield from (path.relative_to(folder).as_posix() for path in folder.glob(pattern))


def _check_content(folder: Path, present: Collection[str]) -> None:
    """Refuse files that begin as something else, which a clone or a browser left in their place."""
    for name in sorted(present):
        if name in _READ or name.endswith(".safetensors"):
            with (folder / name).open("rb") as file:
                head = file.read(64).lstrip().lower()
            for beginning, meaning in _IMPOSTORS.items():
                if head.startswith(beginning):
                    raise ModelInvalidError(f"{folder / name} is {meaning}.")


def _vocabulary(present: Collection[str]) -> tuple[str, ...]:
    """Return the files of a tokenizer without tokenizer.json, or nothing if there is none."""
    if set(VOCABULARY) <= set(present):
        return VOCABULARY
    return (WORDPIECE_VOCABULARY,) if WORDPIECE_VOCABULARY in present else ()


def _below(present: Collection[str]) -> str:
    """Name a folder below that has a config, of several checkpoints the last."""
    folders = [str(PurePosixPath(path).parent) for path in present if path.endswith(f"/{CONFIG}")]
    if not folders:
        return ""
    last = max(folders, key=lambda name: [int(number) for number in re.findall(r"\d+", name)[-1:]] or [-1])
    return f" Its folder {last} has one: name that folder, or a copy of it."


def _other_weights(present: Collection[str]) -> str:
    if any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in present):
        return " Only safetensors are read, because loading other formats can run code."
    if any(name.endswith((".gguf", ".h5", ".msgpack", ".onnx", ".ot")) for name in present):
        return " Only safetensors are read: save the model with Transformers' save_pretrained."
    return ""


def _other_tokenizer(present: Collection[str]) -> str:
    model = next((name for name in sorted(present) if name.endswith(".model") and "/" not in name), None)
    if model is None:
        return ""
    return (
        f" Its {model} is SentencePiece's: load it with Transformers' AutoTokenizer where sentencepiece is installed, "
        f"and save_pretrained writes {TOKENIZER}."
    )
