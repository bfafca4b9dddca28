"""The settings that a model's files give to Transformers' `generate`: where texts end, and those the bot leaves out.

The settings that people choose are the only ones that shape a text. So of the model's own settings the bot takes the
tokens that end a text and the one that pads it, as `TextGenerationPipeline` does, and `bot.programs` resets the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from transformers import GenerationConfig

from bot.errors import ModelInvalidError
from bot.gpt2.model.folder import CONFIG, GENERATION_CONFIG

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import GPT2Config, PreTrainedTokenizerBase

# Special tokens, and what changes no text or is always chosen by the request.
_HARMLESS: Final = frozenset(
    {
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "do_sample",
        "use_cache",
        "transformers_version",
        "_from_model_config",
    }
)


@dataclass(frozen=True, slots=True)
class Endings:
    """The tokens that end a text.

    Attributes:
        tokens: Their ids; empty if only the length ends a text.
        padding: The token with which the pipeline pads a text that ends before others of its request; None if it has
            none.
        unused: Names of the model's settings that the bot does not use.
    """

    tokens: frozenset[int]
    padding: int | None
    unused: tuple[str, ...]


def read_endings(folder: Path, config: GPT2Config, tokenizer: PreTrainedTokenizerBase) -> Endings:
    """Read a model's generation settings from generation_config.json or, as Transformers does, from config.json.

    Raises:
        ModelInvalidError: Transformers cannot use them either.
    """
    try:
        settings = _settings(folder)
        tokens = _ids(settings.eos_token_id)
    except (OSError, ValueError, TypeError) as error:
        fault = " ".join(str(error).split())
        raise ModelInvalidError(f"{folder / GENERATION_CONFIG} cannot be used: {fault}") from error
    paddings = (settings.pad_token_id, tokenizer.pad_token_id, *tokens)
    padding = next((token for token in paddings if token is not None), None)
    unused = sorted(_unused(settings))
    if getattr(config, "prefix", None):  # the pipeline would put it before every prompt
        unused.append("prefix")
    return Endings(
        frozenset(token for token in tokens if 0 <= token < config.vocab_size),
        padding if isinstance(padding, int) and 0 <= padding < config.vocab_size else None,
        tuple(unused),
    )


def _settings(folder: Path) -> GenerationConfig:
    """Load as `GenerationMixin.adjust_generation_fn` (transformers/generation/utils.py) does."""
    try:
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    except OSError:  # missing, or no JSON
        return GenerationConfig.from_pretrained(
            folder, config_file_name=CONFIG, local_files_only=True, _from_model_config=True
        )


def _ids(token: object) -> list[int]:
    """Convert eos_token_id as `_prepare_special_tokens` does.

    Raises:
        ValueError: It is an empty list, with which `generate` fails.
        TypeError: It is no number.
    """
    if token is None:
        return []
    ids: list[int] = torch.tensor(token, dtype=torch.long).flatten().tolist()
    if not ids:
        raise ValueError("eos_token_id is an empty list")
    return ids


def _unused(settings: GenerationConfig) -> set[str]:
    defaults = GenerationConfig._get_default_generation_params()  # noqa: SLF001
    known = vars(GenerationConfig()).keys() - _HARMLESS
    return {
        name
        for name, value in settings.to_diff_dict().items()
        if name in known and value is not None and value is not False and value != defaults.get(name)
    }
