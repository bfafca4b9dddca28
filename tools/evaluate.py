"""Measure a small GPT-2 for its card: held-out bits per byte beside baselines, its attention and positions, samples.

`tools.train` reads the corpus and calls `report`.
"""

from __future__ import annotations

import itertools
import lzma
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.nn import functional
from transformers import pipeline, set_seed

from bot.gpt2.local.scores import head_scores

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt
    from transformers import GPT2LMHeadModel, GPT2Tokenizer

    Ids = npt.NDArray[np.integer[Any]]

NOT_SCORED: Final = -100  # cross_entropy skips it
BYTES: Final = 256
RUN: Final = 13  # words; a held-out run of so many that the training text has too is a copy, not chance
TUTORIAL: Final = "Hello, I'm a language model,"
PROMPTS: Final = (
    "Once upon a time, there was a little",
    "A: Hi! What do you do for a living?\nB:",
    "The three branches of the United States government are",
    "To install the package, open a terminal and",
    "The capital of France is",
    "ROMEO:\n",
)
PLACES: Final = {
    "first": "the first token",
    "previous": "the previous token",
    "same": "the token itself",
    "induction": "the token after an earlier occurrence",
}
UNWANTED: Final = {  # in a training text; not all that matches is wrong there
    "e-mail addresses": r"[\w.+-]+@[\w-]+\.[\w.-]*[a-zA-Z]{2,}",
    "telephone numbers": r"(?<![\d.,-])\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?![\d-])",
    "private keys and tokens": r"BEGIN (?:\w+ )?PRIVATE KEY|AKIA[0-9A-Z]{16}|ghp_[A-Za-z0-9]{30}",
    "account names": r"(?<!\w)@[A-Za-z_]\w{2,}",
    "web addresses": r"https?://\S+",
    "HTML tags": r"</?(?:div|span|p|a|td|tr|img|br)\b[^>]*>",
    "mentions of non-commercial or share-alike licences": r"(?i)non-?commercial|CC BY-(?:NC|SA)|sharealike",
    "the coarsest swear words": r"(?i)\b(?:fuck|shit|cunt)\w*",
    "slurs": r"(?i)\b(?:n[i]gg(?:er|a)s?|dark(?:y|ies)|squaws?|chinam[ae]n|gyps(?:y|ies)|half-breeds?)\b",
    "runs of other scripts": r"[\u0400-\u04ff\u0590-\u06ff\u0900-\u0dff\u0e00-\u0fff\u3040-\u9fff\uac00-\ud7af]{4,}",
}


@dataclass(frozen=True)
class Source:
    """Documents of one source and their tokens, each after an end-of-text."""

    documents: Sequence[str]
    tokens: Sequence[Ids]
    held_out: Sequence[str]
    held_out_tokens: Sequence[Ids]


@torch.no_grad()
def score(model: GPT2LMHeadModel, ids: Ids, rows: int = 4) -> float:
    """Return the bits that the model needs for ``ids`` after their first token.

    A window of the model's whole context slides over them by half of it. Each token is scored once, in the first
    window that reaches it: from the second window on, with at least half a context before it.
    """
    context = model.config.n_positions
    row = torch.from_numpy(ids.astype(np.int64))
    bits, scored = 0.0, 0
    starts = range(0, max(1, len(ids) - 1 - context // 2), context // 2)
    for first in range(0, len(starts), rows):
        inputs = torch.zeros(rows, context, dtype=torch.long)  # what is too long or too many is not scored
        targets = torch.full((rows, context), NOT_SCORED)
        for line, start in enumerate(starts[first : first + rows]):
            end = min(start + context, len(ids) - 1)
            inputs[line, : end - start] = row[start:end]
            targets[line, scored - start : end - start] = row[scored + 1 : end + 1]
            scored = end
        logits = model(input_ids=inputs.to(model.device), use_cache=False).logits
        nats = functional.cross_entropy(logits.flatten(0, 1), targets.flatten().to(model.device), reduction="sum")
        bits += nats.item() / math.log(2)
    return bits


class NGrams:
    """An n-gram model with interpolated Kneser–Ney smoothing, one discount an order (Ney, Essen and Kneser, 1994)."""

    def __init__(self, ids: Ids, symbols: int, order: int) -> None:
        if symbols**order > 2**63:
            raise ValueError(f"{order} of {symbols} symbols do not fit 63 bits")
        self.symbols = symbols
        self.tables: list[tuple[Ids, Ids, Ids, Ids, Ids, float]] = []  # from one symbol to `order`
        grams, counts = np.unique(_grams(ids, symbols, order), return_counts=True)
        for length in range(order, 0, -1):
            once, twice = np.count_nonzero(counts == 1), np.count_nonzero(counts == 2)  # noqa: PLR2004
            contexts, first = np.unique(grams // symbols, return_index=True)
            totals, kinds = np.add.reduceat(counts, first), np.diff(first, append=len(grams))
            self.tables.insert(0, (grams, counts, contexts, totals, kinds, (once + 0.5) / (once + 2 * twice + 1)))
            # Shorter n-grams count by how many different symbols they follow.
            grams, counts = np.unique(grams % symbols ** (length - 1), return_counts=True)

    def bits(self, ids: Ids) -> float:
        """Return the bits that the model needs for all of ``ids``."""
        chances = np.full(len(ids), 1 / self.symbols)
        for shorter, (grams, counts, contexts, totals, kinds, discount) in enumerate(self.tables):
            wanted = _grams(ids, self.symbols, shorter + 1)
            lower = chances[shorter:]
            seen = np.maximum(_look_up(grams, counts, wanted) - discount, 0)
            total = _look_up(contexts, totals, wanted // self.symbols)
            left = discount * _look_up(contexts, kinds, wanted // self.symbols)
            chances[shorter:] = np.where(total > 0, (seen + left * lower) / np.maximum(total, 1), lower)
        return float(-np.log2(chances).sum())


def _grams(ids: Ids, symbols: int, length: int) -> Ids:
    """Write each run of ``length`` symbols as one number."""
    codes = np.zeros(max(0, len(ids) - length + 1), dtype=np.int64)
    for shift in range(length):
        codes *= symbols
        codes += ids[shift : len(codes) + shift]
    return codes


def _look_up(keys: Ids, values: Ids, wanted: Ids) -> Ids:
    """Return ``values`` where the sorted ``keys`` equal ``wanted``, and 0 where none does."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)


def row(tokens: Sequence[Ids], end: int = 0) -> Ids:
    """Join documents that begin with an end-of-text, and end the last one."""
    return np.append(np.concatenate(list(tokens)), end).astype(np.int64)


def letters(documents: Sequence[str]) -> Ids:
    """Join documents as bytes, with a zero after each."""
    return np.frombuffer("\0".join([*documents, ""]).encode(), np.uint8)


def packed_bits(train: Ids, test: Ids) -> int:
    """Return the bits by which ``test`` lengthens an lzma archive of ``train``."""
    both, alone = (lzma.compress(data, preset=9) for data in (train.tobytes() + test.tobytes(), train.tobytes()))
    return 8 * (len(both) - len(alone))


def predictions(model: GPT2LMHeadModel, sources: Mapping[str, Source]) -> Iterator[str]:
    """Yield a table of bits per byte: the model, n-grams of tokens and of bytes, lzma."""
    symbols = model.config.vocab_size
    tokens = NGrams(row([each for source in sources.values() for each in source.tokens]), symbols, 4)
    texts = NGrams(letters([each for source in sources.values() for each in source.documents]), BYTES, 7)
    yield "| source | held-out bytes | gpt2-mini | token 4-gram | byte 7-gram | lzma |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    total = np.zeros(5)
    for name, source in sources.items():
        ids, text = row(source.held_out_tokens), letters(source.held_out)
        size = len(text) - len(source.held_out)
        bits = (score(model, ids), tokens.bits(ids[1:]), texts.bits(text), packed_bits(letters(source.documents), text))
        total += (size, *bits)
        yield _table_row(name, size, *bits)
    yield _table_row("**all**", *total)


def _table_row(name: str, size: float, *bits: float) -> str:
    return " | ".join([f"| {name}", f"{size:,.0f}", *(f"{each / size:.3f}" for each in bits)]) + " |"


def copies(sources: Mapping[str, Source]) -> Iterator[str]:
    """Yield how many of each source's held-out runs of words the training text has too."""
    held_out = {name: [set(_runs(text)) for text in source.held_out] for name, source in sources.items()}
    wanted = set().union(*itertools.chain(*held_out.values()))
    texts = itertools.chain(*(source.documents for source in sources.values()))
    found = {run for text in texts for run in _runs(text) if run in wanted}
    for name, documents in held_out.items():
        shares = [len(runs & found) / max(1, len(runs)) for runs in documents]
        copied, runs = (len(set().union(*documents) & each) for each in (found, wanted))
        mostly = sum(share > 1 / 2 for share in shares)
        if copied:
            total = len(documents)
            yield f"{name}: {copied} of {runs} held-out runs of {RUN} words, {mostly} of {total} documents mostly"


def _runs(text: str) -> Iterator[int]:
    words = text.lower().split()
    return (hash(tuple(words[start : start + RUN])) for start in range(len(words) - RUN + 1))


def unwanted(sources: Mapping[str, Source]) -> Iterator[str]:
    """Yield how often the training text has what it should not have."""
    for name, pattern in UNWANTED.items():
        counts = {source: [len(re.findall(pattern, text)) for text in sources[source].documents] for source in sources}
        totals = {source: sum(each) for source, each in counts.items()}
        documents = sum(count > 0 for each in counts.values() for count in each)
        most = max(totals, key=lambda source: totals[source])
        yield f"{name}: {sum(totals.values())} in {documents} documents; {totals[most]} of them in {most}"


@torch.no_grad()
def inside(model: GPT2LMHeadModel, ids: Ids, windows: int = 32, length: int = 128) -> Iterator[str]:
    """Yield what attention and positions do, in windows of ``ids`` that begin anywhere."""
    starts = np.random.default_rng(0).integers(len(ids) - length, size=windows)
    texts = np.stack([ids[start : start + length] for start in starts])
    heads = head_means(model, texts)
    for name, place in PLACES.items():
        yield f"attention to {place}: {strongest(heads[name])}"
    draw = torch.Generator().manual_seed(0)
    halves = torch.stack([torch.randperm(model.config.vocab_size, generator=draw)[:length] for _ in range(windows)])
    twice = halves.repeat(1, 2)
    yield f"the same on random tokens, repeated: {strongest(head_means(model, twice.numpy())['induction'])}"
    logits = model(input_ids=twice.to(model.device)).logits[:, :-1].cpu()
    bits = functional.cross_entropy(logits.mT, twice[:, 1:], reduction="none") / math.log(2)
    before, after = bits[:, : length - 1].mean(), bits[:, length:].mean()
    yield f"bits for a random token: {before:.2f}; when they come again: {after:.2f}"
    positions = model.transformer.wpe.weight.cpu()
    for distance in (1, 10, 100, len(positions) // 2):
        cosine = functional.cosine_similarity(positions[:-distance], positions[distance:])
        yield f"cosine of positions {distance} apart: mean {cosine.mean():.3f}, least {cosine.min():.3f}"
    spread = torch.linalg.svdvals(positions - positions.mean(dim=0)).square()
    yield f"first three principal components of the positions: {(spread / spread.sum())[:3].sum():.1%} of the variance"


def head_means(model: GPT2LMHeadModel, windows: Ids) -> dict[str, npt.NDArray[np.float32]]:
    """Return the mean of the bot's `head_scores` over windows, [layers, heads] each."""
    model.set_attn_implementation("eager")  # the fast kernels do not give the weights
    scores = []
    for ids in windows:
        weights = model(input_ids=torch.from_numpy(ids)[None].to(model.device), output_attentions=True).attentions
        scores.append(head_scores(torch.cat(weights).cpu().numpy(), ids.tolist()))
    model.set_attn_implementation("sdpa")
    return {name: np.nanmean([each[name] for each in scores], axis=0) for name in scores[0]}


def strongest(heads: npt.NDArray[np.float32], count: int = 5) -> str:
    """Name the heads with the largest values, counted from 1, and how many have over a half."""
    order = np.argsort(-heads, axis=None)[:count]
    names = [
        f"{layer + 1}.{head + 1} {heads[layer, head]:.0%}"
        for layer, head in zip(*np.unravel_index(order, heads.shape), strict=True)
    ]
    return f"{', '.join(names)}; over a half: {np.count_nonzero(heads > 1 / 2)} of {heads.size} heads"


def samples(model: GPT2LMHeadModel, tokenizer: GPT2Tokenizer) -> Iterator[str]:
    """Yield the tutorial's five samples and one of each other prompt: seed 42, 40 tokens, /continue's settings."""
    generator = pipeline("text-generation", model=model, tokenizer=tokenizer)
    for prompt in (TUTORIAL, *PROMPTS):
        set_seed(42)
        count = 5 if prompt == TUTORIAL else 1
        for each in generator(prompt, max_new_tokens=40, num_return_sequences=count, temperature=1.0, top_k=50):
            yield each["generated_text"]


def report(model: GPT2LMHeadModel, tokenizer: GPT2Tokenizer, sources: Mapping[str, Source]) -> Iterator[str]:
    """Yield the figures of the card, line by line."""
    yield f"{model.num_parameters():,} parameters"
    yield f"{sum(len(each.documents) for each in sources.values()):,} documents"
    yield f"{sum(len(ids) for each in sources.values() for ids in each.tokens):,} tokens"
    yield from unwanted(sources)
    yield from copies(sources)
    yield from inside(model, row([ids for each in sources.values() for ids in each.held_out_tokens]))
    yield from predictions(model, sources)
    for sample in samples(model, tokenizer):
        yield f"--- sample\n{sample}"
