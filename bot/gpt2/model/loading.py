"""Loading of GPT-2: weights in float32, the tokenizer, and a public description of both."""

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

from bot.errors import ModelInvalidError, SettingsError
from bot.gpt2.model import files
from bot.gpt2.model.parameters import ParameterStore, find_stored
from bot.gpt2.model.shapes import state_dict_shapes
from bot.gpt2.model.transformer import Transformer, make_activation
from bot.gpt2.model_info import ModelInfo

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection

    from transformers import PreTrainedTokenizerBase

    from bot.config import Device, Precision
    from bot.gpt2.model_info import Origin

EMBEDDING: Final = "transformer.wte.weight"
OUTPUT: Final = "lm_head.weight"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to use.

    Attributes:
        transformer: The forward pass, with packed weights.
        tokenizer: Byte-level BPE.
        end_of_text: The token id that ends a text.
        parameters: The state dict, read from the file.
        info: The public description.
    """

    transformer: Transformer
    tokenizer: PreTrainedTokenizerBase
    end_of_text: int
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
        ModelInvalidError: The files cannot be used.
        SettingsError: This machine cannot compute as the settings ask.
        UnreachableError: The hub is unreachable.
    """
    chosen_device = _device(device)
    if precision == "float16" and chosen_device.type != "cpu":
        raise SettingsError(
            ["GPT2_PRECISION is float16, which is for the CPU: set GPT2_DEVICE to cpu, or use float32."]
        )
    log.info("locating the model", model=name)
    folder = files.locate(name, cache, stopped)
    config = _config(folder)
    log.info("loading the model", folder=str(folder), layers=config.n_layer, width=config.n_embd)
    tokenizer = _tokenizer(folder, config)
    parameters = _parameters(folder, config)
    transformer = _transformer(config, parameters, chosen_device, precision)
    missing = tuple(info.name for info in parameters.infos if not info.stored)
    origin = _origin(name)
    info = ModelInfo(
        name=folder.name if origin == "folder" else name,
        layers=config.n_layer,
        heads=config.n_head,
        width=config.n_embd,
        context=config.n_positions,
        vocabulary=config.vocab_size,
        parameters=sum(info.size for info in parameters.infos if info.tied_to is None),
        device=chosen_device.type,
        precision=precision,
        missing=missing,
        origin=origin,
        fingerprint=f"{files.fingerprint(folder)} {torch.__version__ if missing else ''}".strip(),
    )
    if missing:
        log.warning("the file holds only part of the model; the rest is random", missing=len(missing))
    return LoadedModel(transformer, tokenizer, _end_of_text(tokenizer, config), parameters, info)


def _device(wanted: Device) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise SettingsError(["GPT2_DEVICE is cuda, but PyTorch sees no CUDA device here. Use auto or cpu."])
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def _origin(name: str) -> Origin:
    """Return where a model of this name comes from, by the rules of `files.locate`."""
    if name == files.SHIPPED:
        return "shipped"
    return "folder" if Path(name).expanduser().is_dir() else "hub"


def _config(folder: Path) -> GPT2Config:
    path = folder / files.CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelInvalidError(f"{path} cannot be read as JSON: {error}") from error
    kind = values.get("model_type") if isinstance(values, dict) else None
    if kind != "gpt2":
        raise ModelInvalidError(f"{path} describes a model of type {kind!r}; this bot runs GPT-2 (model_type 'gpt2').")
    try:
        return GPT2Config.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # validation errors of several libraries
        raise ModelInvalidError(f"{path} cannot be used: {error}") from error


def _tokenizer(folder: Path, config: GPT2Config) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the Rust library raises bare Exception for damaged files
        raise ModelInvalidError(f"The tokenizer in {folder} cannot be loaded: {error}") from error
    if len(tokenizer) > config.vocab_size:
        raise ModelInvalidError(
            f"The tokenizer in {folder} has {len(tokenizer)} tokens, the model only {config.vocab_size}."
        )
    return tokenizer


def _transformer(
    config: GPT2Config, parameters: ParameterStore, device: torch.device, precision: Precision
) -> Transformer:
    try:
        with torch.inference_mode():
            return Transformer(config, parameters.tensor, device, precision)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelInvalidError(f"The weights cannot be loaded: {error}") from error


def _parameters(folder: Path, config: GPT2Config) -> ParameterStore:
    """Describe the state dict; stored values stay in the files, missing ones are initialized."""
    shapes = _shapes(folder, config)
    tied = {OUTPUT: EMBEDDING} if config.tie_word_embeddings else {}
    try:
        stored = find_stored(files.weight_files(folder), shapes.keys() - tied.keys())
        filled = _filled(folder, config, shapes.keys() - tied.keys() - stored.keys())
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ModelInvalidError(f"The weights in {folder} cannot be loaded: {error}") from error
    for name, entry in stored.items():
        if entry.shape != shapes[name]:
            raise ModelInvalidError(
                f"The weights in {folder} do not fit its {files.CONFIG}: {name} has the shape {list(entry.shape)} "
                f"instead of {list(shapes[name])}."
            )
    return ParameterStore(shapes, stored, tied=tied, filled=filled)


def _shapes(folder: Path, config: GPT2Config) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every state-dict entry; raise ModelInvalidError for an unusable config."""
    try:
        make_activation(config.activation_function)
        return state_dict_shapes(config)
    except ValueError as error:
        raise ModelInvalidError(f"{folder / files.CONFIG} describes no model: {error}") from error


def _filled(folder: Path, config: GPT2Config, missing: Collection[str]) -> dict[str, torch.Tensor]:
    """Return values for missing entries, as Transformers initializes them after `torch.manual_seed(0)`."""
    if not missing:
        return {}
    from transformers import GPT2LMHeadModel  # noqa: PLC0415 # takes 1.5 s and 120 MB

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call] # `load` logs what is missing
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = GPT2LMHeadModel.from_pretrained(
            folder, config=config, dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
    values = network.state_dict()
    return {name: values[name].clone() for name in missing}


def _end_of_text(tokenizer: PreTrainedTokenizerBase, config: GPT2Config) -> int:
    token = config.eos_token_id if config.eos_token_id is not None else tokenizer.eos_token_id
    if isinstance(token, list):
        token = token[0]
    if not isinstance(token, int) or not 0 <= token < config.vocab_size:
        raise ModelInvalidError(f"The model names no usable end-of-text token (eos_token_id is {token!r}).")
    return token
