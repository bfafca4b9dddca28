"""Train ``gpt2-mini``, the small English GPT-2 that ships with the bot: from documents to a Transformers folder.

    python -m tools.train --corpus CORPUS --output MODEL                # resumes where it was stopped
    python -m tools.train --corpus CORPUS --output MODEL --compile      # on a GPU: about nine minutes on an H200
    python -m tools.train --corpus CORPUS --evaluate bot/gpt2/gpt2-mini # print the figures of the model's card

CORPUS has one file for each source, ``docs-SOURCE.xz``: UTF-8 documents, separated by NUL characters. Held-out
documents are in ``docs-val.json.xz``, ``{source: [document]}``; where that is missing, a share of each source is held
out and written there. They are only ever scored. A step depends on nothing but the recipe, the tokens and its number.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import random
import sys
import zlib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch.nn import functional
from tqdm.auto import tqdm
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, GPT2Tokenizer, set_seed
from transformers.utils import logging as transformers_logging

from tools.evaluate import Source, report

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

    Ids = npt.NDArray[np.integer[Any]]
    Documents = dict[str, list[str]]  # by source

END_OF_TEXT: Final = "<|endoftext|>"  # token 0; before every document
HELD_OUT: Final = "docs-val.json.xz"
CHUNK: Final = 1000  # documents tokenized at a time


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the weights, except the documents."""

    # The network: GPT-2's own architecture, small.
    vocabulary: int = 8192
    context: int = 1024  # tokens
    width: int = 384
    layers: int = 10
    heads: int = 6
    # The data: how often an epoch takes each document of a source (once if not listed); 1.5 takes half of them twice.
    weights: dict[str, float] = field(
        default_factory=lambda: {
            "community_blogs_ccby": 1.5,
            "dialogues_chitchat": 2,
            "dialogues_smalltalk": 2,
            "dialogues_synthetic_persona": 3,
            "hf_course": 3,
            "jargon_file": 2,
            "misc_guides": 2,
            "opensource_guides": 2,
            "public_domain_recipes": 2,
            "standard_ebooks": 1.5,
            "storybooks": 4,
            "us_presidential_speeches": 2,
            "us_state_dept_history": 1.5,
        }
    )
    held_out: float = 0.006  # share of each source's documents, at least one
    held_out_characters: int = 20_000  # of each; the rest of a longer one is dropped
    # The run.
    steps: int = 6218
    batch: int = 128  # windows of `context` tokens a step
    seed: int = 2019
    dropout: float = 0.1  # on the embeddings and on what each block adds; none inside attention
    # Muon for the matrices inside the blocks, AdamW for the rest. The rates rise over the first `warmup` of the steps,
    # stay, and fall in a straight line to zero over the last `decay`.
    muon_rate: float = 0.02
    muon_decay: float = 0.05  # of weights
    adam_rate: float = 3e-3
    embedding_decay: float = 0.01  # of the token embedding; positions, biases and norms do not decay
    clip: float = 1.0  # norm of the gradients that AdamW gets
    warmup: float = 0.02
    decay: float = 0.4

    def rate_factor(self, step: int) -> float:
        """Return the share of the full learning rates at ``step``, counted from 0."""
        done = step / self.steps
        return min(1.0, max(done, 0.0005) / self.warmup, (1 - done) / self.decay)


# --- Documents and tokens ------------------------------------------------------------------------------------------


def read_corpus(folder: Path, recipe: Recipe) -> tuple[Documents, Documents]:
    """Return the documents to train on and the held-out ones; hold some out if nobody has yet."""
    files = [file for file in sorted(folder.glob("docs-*.xz")) if file.name != HELD_OUT]
    if not files:
        raise FileNotFoundError(f"{folder} has no docs-SOURCE.xz; --corpus takes the folder that has them")
    texts = {file.name[len("docs-") : -len(".xz")]: lzma.decompress(file.read_bytes()).decode() for file in files}
    train = {source: list(dict.fromkeys(filter(None, text.split("\0")))) for source, text in texts.items()}
    if not (folder / HELD_OUT).exists():
        held_out = {source: hold_out(documents, recipe) for source, documents in train.items()}
        (folder / HELD_OUT).write_bytes(lzma.compress(json.dumps(held_out).encode()))
    held_out = json.loads(lzma.decompress((folder / HELD_OUT).read_bytes()))
    held_out = {source: documents for source, documents in held_out.items() if source in train}
    for source, documents in held_out.items():
        known = set(documents)
        train[source] = [each for each in train[source] if each[: recipe.held_out_characters] not in known]
    return train, held_out


def hold_out(documents: Sequence[str], recipe: Recipe) -> list[str]:
    """Draw the documents of one source that are never trained on."""
    count = max(1, round(recipe.held_out * len(documents)))
    return [each[: recipe.held_out_characters] for each in random.Random(recipe.seed).sample(documents, count)]


def train_tokenizer(documents: Iterable[str], recipe: Recipe) -> GPT2Tokenizer:
    """Train a byte-level BPE like GPT-2's. It has all 256 bytes, so that any text comes back."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        documents,
        trainers.BpeTrainer(vocab_size=recipe.vocabulary, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet),
    )
    learned = json.loads(bpe.to_str())["model"]
    merges: Any = [tuple(merge) for merge in learned["merges"]]
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
    return GPT2Tokenizer(vocab=learned["vocab"], merges=merges, model_max_length=recipe.context, **special)


def encode(tokenizer: Any, documents: Sequence[str]) -> Iterator[Ids]:
    """Yield the tokens of each document, after an end-of-text."""
    for start in range(0, len(documents), CHUNK):
        for ids in tokenizer(list(documents[start : start + CHUNK]), verbose=False)["input_ids"]:
            yield np.array([tokenizer.eos_token_id, *ids], dtype=np.uint16)


def epoch(train: Documents, recipe: Recipe) -> list[str]:
    """Return each document as often as its source weighs, in random order."""
    draw, taken = random.Random(recipe.seed), []
    for source in sorted(train):
        weight = recipe.weights.get(source, 1)
        for share in (weight - times for times in range(math.ceil(weight))):
            taken += [each for each in train[source] if share >= 1 or draw.random() < share]
    draw.shuffle(taken)
    return taken


# --- Training ------------------------------------------------------------------------------------------------------


def build_model(recipe: Recipe) -> GPT2LMHeadModel:
    """Build a network of the recipe's sizes with random weights, as OpenAI's began."""
    set_seed(recipe.seed)
    config = GPT2Config(
        vocab_size=recipe.vocabulary,
        n_positions=recipe.context,
        n_embd=recipe.width,
        n_layer=recipe.layers,
        n_head=recipe.heads,
        activation_function="gelu_pytorch_tanh",  # the same function as gelu_new, in one kernel
        resid_pdrop=recipe.dropout,
        embd_pdrop=recipe.dropout,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal by five Newton–Schulz steps (Jordan et al., 2024; https://kellerjordan.github.io).

    `torch.optim.Muon` takes one polynomial for all steps and one matrix after another; this one has a polynomial for
    each step, which converges faster, and computes matrices of the same shape together. Matrices are (in, out), as in
    Transformers' GPT-2.
    """

    POLYNOMIALS: Final = (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    )

    def __init__(self, matrices: Iterable[torch.Tensor], weight_decay: float, momentum: float = 0.95) -> None:
        shapes: dict[torch.Size, list[torch.Tensor]] = {}
        for matrix in matrices:
            shapes.setdefault(matrix.shape, []).append(matrix)
        groups = [{"params": same} for same in shapes.values()]
        super().__init__(groups, {"lr": 0.0, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override] # noqa: ARG002
        """Take one step."""
        for group in self.param_groups:
            first, rate = group["params"][0], group["lr"]
            gradients = torch.stack([each.grad for each in group["params"]])
            momentum = self.state[first].setdefault("momentum", torch.zeros_like(gradients))
            momentum.lerp_(gradients, 1 - group["momentum"])
            updates = self._orthogonal(gradients.lerp(momentum, group["momentum"]))
            stretch = max(1.0, first.shape[1] / first.shape[0]) ** 0.5
            for matrix, update in zip(group["params"], updates, strict=True):
                matrix.mul_(1 - rate * group["weight_decay"]).add_(update, alpha=-rate * stretch)

    def _orthogonal(self, matrices: Any) -> Any:
        """Move all singular values close to 1."""
        tall = matrices.shape[-2] > matrices.shape[-1]
        x = (matrices.mT if tall else matrices).bfloat16()
        x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)
        for a, b, c in self.POLYNOMIALS:
            square = x @ x.mT
            x = a * x + (b * square + c * (square @ square)) @ x
        return (x.mT if tall else x).float()


class Trainer:
    """One run: the network, its optimizers and how far it has come."""

    def __init__(
        self, recipe: Recipe, row: Ids, device: str = "cpu", rows: int = 128, *, compiled: bool = False
    ) -> None:
        if len(row) <= recipe.context:
            raise ValueError(f"{len(row)} tokens are too few for windows of {recipe.context}")
        self.recipe, self.row, self.device, self.rows, self.step = recipe, row, device, rows, 0
        self.model = build_model(recipe).to(device)
        self.network: Any = torch.compile(self.model, dynamic=False) if compiled else self.model
        blocks = [p for n, p in self.model.named_parameters() if p.ndim > 1 and n.startswith("transformer.h.")]
        tokens = self.model.transformer.wte.weight
        known = {id(each) for each in (tokens, *blocks)}
        others = [each for each in self.model.parameters() if id(each) not in known]
        self.adam_parameters = [tokens, *others]
        groups = [
            {"params": [tokens], "weight_decay": recipe.embedding_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.muon = Muon(blocks, recipe.muon_decay)
        self.adam = torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=device.startswith("cuda"))

    def windows(self) -> Any:
        """Return this step's windows, [batch, context + 1]: they begin anywhere, as OpenAI's did."""
        starts = torch.randint(len(self.row) - self.recipe.context, (self.recipe.batch, 1)).numpy()
        return torch.from_numpy(self.row[starts + np.arange(self.recipe.context + 1)].astype(np.int64))

    def advance(self) -> torch.Tensor:
        """Take one step and return its loss in nats a token."""
        recipe, total = self.recipe, torch.zeros((), device=self.device)
        torch.manual_seed(recipe.seed * 1_000_003 + self.step)  # of the windows and of dropout
        self.model.train()
        for windows in self.windows().to(self.device).split(self.rows):
            with torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=self.device != "cpu"):
                logits = self.network(input_ids=windows[:, :-1], use_cache=False).logits
            loss = functional.cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten())
            loss = loss * len(windows) / recipe.batch
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.adam_parameters, recipe.clip)
        rates = ((self.muon, recipe.muon_rate), (self.adam, recipe.adam_rate))
        for optimizer, rate in rates:
            for group in optimizer.param_groups:
                group["lr"] = rate * recipe.rate_factor(self.step)
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return total

    @property
    def _origin(self) -> dict[str, Any]:
        return {"recipe": asdict(self.recipe), "tokens": zlib.crc32(self.row.tobytes())}

    def save(self, path: Path) -> None:
        """Write everything that a later process needs to go on as if nothing had happened."""
        parts = {"model": self.model, "muon": self.muon, "adam": self.adam}
        state = {name: part.state_dict() for name, part in parts.items()}
        torch.save({**state, "origin": self._origin, "step": self.step}, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same recipe and tokens."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["origin"] != self._origin:
            raise ValueError(f"{path} has another recipe or other tokens; remove it, or choose another --work folder")
        for part, name in ((self.model, "model"), (self.muon, "muon"), (self.adam, "adam")):
            part.load_state_dict(state[name])
        self.step = state["step"]


def export(model: GPT2LMHeadModel, tokenizer: Any, folder: Path) -> None:
    """Write model (float16, without dropout) and tokenizer in Transformers' form."""
    plain = {"activation_function": "gelu_new", "resid_pdrop": 0.0, "embd_pdrop": 0.0}
    exported = GPT2LMHeadModel(GPT2Config(**{**model.config.to_dict(), **plain}))
    exported.load_state_dict(model.state_dict())
    exported.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))  # vocab.json and merges.txt, for other programs


def train(recipe: Recipe, options: argparse.Namespace) -> None:
    """Train from the documents, or from the last checkpoint, to the exported folder."""
    documents = epoch(read_corpus(options.corpus, recipe)[0], recipe)
    options.work.mkdir(parents=True, exist_ok=True)
    folder = options.tokenizer or options.work / "tokenizer"
    if not folder.exists():
        train_tokenizer(documents, recipe).save_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    if len(tokenizer) > recipe.vocabulary:
        raise ValueError(f"the tokenizer has {len(tokenizer)} tokens, the recipe's vocabulary only {recipe.vocabulary}")
    row = np.concatenate(list(tqdm(encode(tokenizer, documents), total=len(documents), desc="tokenizing")))
    trainer = Trainer(recipe, row, options.device, options.rows, compiled=options.compile)
    checkpoint = options.work / "checkpoint.pt"
    if checkpoint.exists():
        trainer.resume(checkpoint)
    epochs = recipe.steps * recipe.batch * recipe.context / len(row)
    print(f"{trainer.model.num_parameters():,} parameters; {len(row):,} tokens, {epochs:.1f} times")
    with tqdm(total=recipe.steps, initial=trainer.step, unit="step") as bar:
        while trainer.step < recipe.steps:
            loss = trainer.advance()
            bar.update()
            if trainer.step % options.every == 0 or trainer.step == recipe.steps:
                bar.write(f"step {trainer.step}  loss {loss.item():.4f} nats a token", file=sys.stdout)
                trainer.save(checkpoint)
    export(trainer.model, tokenizer, options.output)


def evaluate(recipe: Recipe, options: argparse.Namespace) -> None:
    """Print the figures of the card of the model in ``options.evaluate``."""
    tokenizer: Any = AutoTokenizer.from_pretrained(options.evaluate)
    model = GPT2LMHeadModel.from_pretrained(options.evaluate, dtype=torch.float32).to(options.device)
    documents, held_out = read_corpus(options.corpus, recipe)
    sources = {
        name: Source(documents[name], list(encode(tokenizer, documents[name])), texts, list(encode(tokenizer, texts)))
        for name, texts in tqdm(held_out.items(), desc="tokenizing", unit="source")
    }
    for line in report(model, tokenizer, sources):
        print(line, flush=True)


# --- The command line ----------------------------------------------------------------------------------------------


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    gpu = torch.cuda.is_available()
    summary, _, usage = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=usage, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True, help="folder with the documents")
    parser.add_argument("--evaluate", type=Path, metavar="MODEL", help="measure the model in this folder, do not train")
    parser.add_argument("--output", type=Path, default=Path("gpt2-mini"), help="folder of the trained model")
    parser.add_argument("--work", type=Path, default=Path(".train"), help="folder of the checkpoint and the tokenizer")
    parser.add_argument("--tokenizer", type=Path, metavar="MODEL", help="take this tokenizer; do not train one")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change the recipe")
    parser.add_argument("--rows", type=int, default=128 if gpu else 4, help="windows computed at once: less memory")
    parser.add_argument("--every", type=int, default=200, help="steps between two checkpoints")
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--compile", action="store_true", help="fuse kernels: takes a minute, then doubles the speed")
    return parser.parse_args(arguments)


def changed_recipe(changes: Iterable[str]) -> Recipe:
    """Return the recipe with ``name=value`` changes; a value has the type of the one that it replaces."""
    numbers = {each.name: getattr(Recipe(), each.name) for each in fields(Recipe) if each.name != "weights"}
    changed = {}
    for name, _, value in (change.partition("=") for change in changes):
        if name not in numbers:
            raise ValueError(f"the recipe has no number {name!r}; it has {', '.join(numbers)}")
        changed[name] = type(numbers[name])(value)
    return Recipe(**changed)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = parse_arguments(arguments)
    missing = [str(each) for each in (options.evaluate, options.tokenizer) if each and not each.is_dir()]
    if missing:
        sys.exit(f"{missing[0]} is no folder; give the folder of a model")
    transformers_logging.set_verbosity_error()
    torch.set_float32_matmul_precision("high")
    try:
        (evaluate if options.evaluate else train)(changed_recipe(options.set), options)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from the last checkpoint")


if __name__ == "__main__":
    main()
