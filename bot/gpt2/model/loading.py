"""Loading of GPT-2: its weights, the tokenizer, and a public description of both."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, GPT2Config
from transformers.utils import logging as transformers_logging

from bot.errors import ModelInvalidError
from bot.gpt2.model import files, heap
from bot.gpt2.model.device import device_errors, on_device
from bot.gpt2.model.folder import CONFIG, fingerprint, weight_files
from bot.gpt2.model.generation import Endings, read_endings
from bot.gpt2.model.parameters import (
    Checkpoint,
    ParameterStore,
    Stored,
    TemporaryWeights,
    read_checkpoint,
    surplus_prefix,
)
from bot.gpt2.model.shapes import state_dict_shapes
from bot.gpt2.model.transformer import Transformer, make_activation
from bot.gpt2.model_info import ModelInfo

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection, Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

    from bot.config import Device, Precision
    from bot.gpt2.model.transformer import Read
    from bot.gpt2.model_info import Origin

EMBEDDING: Final = "transformer.wte.weight"
OUTPUT: Final = "lm_head.weight"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to use.

    Attributes:
        transformer: The forward pass, with packed weights.
        tokenizer: Mostly byte-level BPE. It may have tokens that the model lacks, and the other way around.
        endings: The tokens that end a text.
        parameters: The state dict, read from the file.
        info: The public description.
    """

    transformer: Transformer
    tokenizer: PreTrainedTokenizerBase
    endings: Endings
    parameters: ParameterStore
    info: ModelInfo


def load(
    name: str,
    *,
    device: Device = "auto",
    precision: Precision = "float32",
    cache: Path | None = None,
    stopped: threading.Event | None = None,
) -> LoadedModel:
    """Find, check and load the model called `name`.

    Values missing in the file (see `ModelInfo.missing`) are drawn with seed 0, so that a partial model is the same
    after every start. Setting `stopped` ends a download.

    Raises:
        DeviceError: The GPU is wanted and cannot be used.
        ModelInvalidError: The files cannot be used.
        SettingsError: This machine cannot compute as the settings ask.
        UnreachableError: The hub is unreachable.
    """
    return on_device(device, precision, lambda chosen: _load(name, chosen, precision, cache, stopped))


def _load(
    name: str, device: torch.device, precision: Precision, cache: Path | None, stopped: threading.Event | None
) -> LoadedModel:
    transformers_logging.set_verbosity_error()  # what matters is logged here
    log.info("locating the model", model=name)
    folder = files.locate(name, cache, stopped)
    config = read_config(folder)
    log.info("loading the model", folder=str(folder), layers=config.n_layer, width=config.n_embd)
    tokenizer = _tokenizer(folder, config)
    endings = _endings(folder, config, tokenizer)
    parameters = _parameters(folder, config)
    origin = _origin(name)
    lasting = origin == "hub"  # its cache never changes a file in place; elsewhere people copy new weights over old
    transformer = _transformer(folder, config, parameters.tensor, device, precision, lasting=lasting)
    missing = tuple(info.name for info in parameters.infos if not info.stored)
    info = ModelInfo(
        name=folder.name if origin == "folder" else name,
        layers=config.n_layer,
        heads=config.n_head,
        width=config.n_embd,
        context=config.n_positions,
        vocabulary=config.vocab_size,
        parameters=sum(info.size for info in parameters.infos if info.tied_to is None),
        device=device.type,
        precision=precision,
        missing=missing,
        origin=origin,
        fingerprint=f"{fingerprint(folder)} {torch.__version__ if missing else ''}".strip(),
        unused_settings=endings.unused,
    )
    if parameters.changed:
        raise ModelInvalidError(f"The weights in {folder} changed while they were loaded; start again.")
    if missing:
        log.warning("the file holds only part of the model; the rest is random", missing=len(missing))
    return LoadedModel(transformer, tokenizer, endings, parameters, info)


def _origin(name: str) -> Origin:
    """Return where a model of this name comes from, by the rules of `files.locate`."""
    if name == files.SHIPPED:
        return "shipped"
    return "folder" if Path(name).expanduser().is_dir() else "hub"


def read_config(folder: Path) -> GPT2Config:
    """Return the config of a model's folder.

    Raises:
        ModelInvalidError: It is not one of GPT-2, or damaged.
    """
    path = folder / CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelInvalidError(f"{path} cannot be read as JSON: {error}") from error
    kind = values.get("model_type") if isinstance(values, dict) else None
    if kind != "gpt2":
        raise ModelInvalidError(f"{path} describes a model of type {kind!r}; this bot runs GPT-2 (model_type 'gpt2').")
    quantization = values.get("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise ModelInvalidError(
            f"{path} describes a quantized model (quant_method {method!r}); this bot runs float weights only. Use the "
            "model that it was made from."
        )
    try:
        return GPT2Config.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # validation errors of several libraries
        raise ModelInvalidError(f"{path} cannot be used: {error}") from error


def _tokenizer(folder: Path, config: GPT2Config) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the Rust library raises bare Exception for damaged files
        raise ModelInvalidError(
            f"The tokenizer in {folder} cannot be loaded: {' '.join(str(error).split())}"
        ) from error
    if len(tokenizer) > config.vocab_size:
        log.warning(
            "the tokenizer has more tokens than the model; prompts that use the others are refused",
            tokenizer=len(tokenizer),
            model=config.vocab_size,
        )
    return tokenizer


def _endings(folder: Path, config: GPT2Config, tokenizer: PreTrainedTokenizerBase) -> Endings:
    endings = read_endings(folder, config, tokenizer)
    if not endings.tokens:
        log.info("the model names no token that ends a text; every sample has its full length")
    if endings.unused:
        log.info("these settings of the model are not used; those that people choose are", settings=endings.unused)
    return endings


def _transformer(
    folder: Path, config: GPT2Config, read: Read, device: torch.device, precision: Precision, *, lasting: bool
) -> Transformer:
    try:
        with torch.inference_mode(), device_errors(device):
            return Transformer(config, read, device, precision, lasting=lasting)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ModelInvalidError(f"The weights in {folder} cannot be used: {error}.") from error


def _parameters(folder: Path, config: GPT2Config) -> ParameterStore:
    """Describe the state dict; stored values stay in the files, missing ones are initialized."""
    shapes = _shapes(folder, config)
    try:
        checkpoint = read_checkpoint(weight_files(folder), shapes)
        _check_checkpoint(folder, checkpoint, shapes)
        stored = dict(checkpoint.stored)
        tied = _tie(stored) if config.tie_word_embeddings else {}
        missing = shapes.keys() - tied.keys() - stored.keys()
        _check_names(folder, missing, checkpoint, shapes)
        filled = _filled(folder, config, missing)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ModelInvalidError(f"The weights in {folder} cannot be loaded: {error}") from error
    return ParameterStore(shapes, stored, tied=tied, filled=filled)


def _check_checkpoint(folder: Path, checkpoint: Checkpoint, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse entries of another shape or type than the model's.

    Raises:
        ModelInvalidError: There is one.
    """
    for name, entry in checkpoint.stored.items():
        if entry.shape != shapes[name]:
            raise ModelInvalidError(
                f"The weights in {folder} do not fit its {CONFIG}: {name} has the shape {list(entry.shape)} "
                f"instead of {list(shapes[name])}."
            )
        if not entry.floating:
            raise ModelInvalidError(
                f"The weights in {folder} cannot be used: {name} is stored as {entry.dtype}, not as floating-point "
                "numbers. Use the model before its quantization."
            )


def _check_names(
    folder: Path, missing: Collection[str], checkpoint: Checkpoint, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse files that lack entries and hold others instead: it is another model, or its names were changed.

    Raises:
        ModelInvalidError: That is so, or they hold no entry at all.
    """
    unknown = checkpoint.unknown
    if missing and (unknown or not checkpoint.stored):
        held = f" and hold {_several(unknown)}, which it does not have" if unknown else ""
        prefix = surplus_prefix(unknown, shapes)
        cure = f" Remove {prefix!r} from the beginning of the names and save them again." if prefix else ""
        raise ModelInvalidError(
            f"The weights in {folder} are not those of its {CONFIG}: they lack {_several(sorted(missing))}{held}.{cure}"
        )


def _several(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _tie(stored: dict[str, Stored]) -> dict[str, str]:
    """Return which entry is another's, as `tie_weights` (transformers/modeling_utils.py) decides after loading.

    Files with both matrices keep both unless they are equal; with one of them, it stands for both.
    """
    if OUTPUT in stored and EMBEDDING in stored:
        if not _equal(stored[OUTPUT], stored[EMBEDDING]):
            log.info("the output matrix is not the token embedding, though the config ties them")
            return {}
    elif OUTPUT in stored:
        stored[EMBEDDING] = stored[OUTPUT]
    stored.pop(OUTPUT, None)
    return {OUTPUT: EMBEDDING}


def _equal(one: Stored, other: Stored) -> bool:
    """Compare two matrices in the precision in which the model computes."""
    return torch.equal(one.load().float(), other.load().float())


def _shapes(folder: Path, config: GPT2Config) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every state-dict entry; raise ModelInvalidError for an unusable config."""
    try:
        make_activation(config.activation_function)
        return state_dict_shapes(config)
    except ValueError as error:
        raise ModelInvalidError(f"{folder / CONFIG} describes no model: {error}") from error


def _filled(folder: Path, config: GPT2Config, missing: Collection[str]) -> TemporaryWeights | None:
    """Return values for missing entries, as Transformers initializes them after `torch.manual_seed(0)`."""
    if not missing:
        return None
    from transformers import GPT2LMHeadModel  # noqa: PLC0415 # takes 1.5 s and 120 MB

    transformers_logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = GPT2LMHeadModel.from_pretrained(
            folder, config=config, dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
    values = network.state_dict()
    weights = TemporaryWeights({name: values[name] for name in missing})
    del network, values
    heap.trim()  # before as much is packed
    return weights
