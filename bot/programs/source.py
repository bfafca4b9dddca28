"""Source text from templates: Python in which `$name` stands for a value."""

from __future__ import annotations

import textwrap
from string import Template
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bot.gpt2.model_info import ModelInfo
    from bot.gpt2.requests import SamplingParams

LINE_CHARACTERS: Final = 72  # of a string literal; more are put on several lines

_SHIPPED_FOLDER: Final = "bot/gpt2/gpt2-mini"
_WHERE: Final = {
    "hub": "",
    "shipped": "  # ships with the bot: run this in a checkout of its code",
    "folder": "  # a folder on the bot's machine: put the path of yours here",
}
SEED: Final = "set_seed"
_PART: Final = f"{SEED}(0)  # the file holds a part of the model: the rest is random, but the same each time"
_ESCAPED: Final = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


class Source(str):
    """Text that is Python already."""

    __slots__ = ()


def fill(template: str, **values: object) -> str:
    """Return `template` with every `$name` replaced by its value as Python source.

    A range becomes the slice between brackets (``0:300``), a text a safe and readable literal. A line that consists
    of the name of an empty `Source` is dropped.
    """
    written = {name: _written(value) for name, value in values.items()}
    lines = textwrap.dedent(template).strip("\n").splitlines()
    kept = [line for line in lines if written.get(line.strip().removeprefix("$")) != ""]
    return Template("\n".join(kept) + "\n").substitute(written)


def imports(model: ModelInfo, *names: str) -> Source:
    """Return the names to import from Transformers: `names`, and those that `opening` needs."""
    return Source(", ".join(sorted({*names, SEED} if model.missing else set(names))))


def opening(model: ModelInfo) -> Source:
    """Return the line that names the model, with a comment on what to write where it is on no hub.

    Parameters that the model's file lacks are random; the bot seeds with 0 before it loads the model, and so does a
    program about such a model.
    """
    line = naming(model)
    return Source(f"{line}\n{_PART}" if model.missing else line)


def naming(model: ModelInfo, variable: str = "model") -> Source:
    """Return the line that names the model alone; see `opening`."""
    name = quoted(_SHIPPED_FOLDER if model.origin == "shipped" else model.name)
    return Source(f"{variable} = {name}{_WHERE[model.origin]}")


def warping(params: SamplingParams) -> tuple[list[str], Source]:
    """Return the classes to import, and the lines that make `after` of `before` and `logits` with the settings."""
    if params.greedy:
        return [], Source("after = (before == before.max()) * 1.0  # temperature 0 always takes the likeliest")
    warpers, lines = [], []
    if params.temperature != 1:
        lines.append(f"logits = logits / {float(params.temperature)!r}")
    if params.top_k:
        warpers.append("TopKLogitsWarper")
        lines.append(f"logits = TopKLogitsWarper({params.top_k!r})(ids, logits)")
    if params.top_p < 1:
        warpers.append("TopPLogitsWarper")
        lines.append(f"logits = TopPLogitsWarper({float(params.top_p)!r})(ids, logits)")
    return warpers, Source("\n".join([*lines, "after = logits.softmax(dim=-1)[0].numpy()"]))


def text(written: str) -> str:
    """Return a literal for any text: on one line, or in parentheses on several."""
    pieces = [piece for line in written.splitlines(keepends=True) for piece in _pieces(line)]
    if len(pieces) <= 1:
        return quoted(written)
    return "(\n" + "".join(f"    {quoted(piece)}\n" for piece in pieces) + ")"


def listed(elements: Iterable[str]) -> Source:
    """Return a list of Python expressions, one a line."""
    return Source("[\n" + "".join(f"{textwrap.indent(element, '    ')},\n" for element in elements) + "]")


def quoted(written: str) -> str:
    """Return a literal on one line, with invisible and direction-changing characters escaped."""
    quote = "'" if '"' in written and "'" not in written else '"'
    return quote + "".join(_escaped(character, quote) for character in written) + quote


def _written(value: object) -> str:
    if isinstance(value, Source):
        return value
    if isinstance(value, str):
        return text(value)
    if isinstance(value, range):
        return f"{value.start}:{value.stop}"
    return repr(value)


def _escaped(character: str, quote: str) -> str:
    if character == quote:
        return f"\\{character}"
    if character in _ESCAPED:
        return _ESCAPED[character]
    return character if character.isprintable() else repr(character)[1:-1]


def _pieces(line: str) -> Iterator[str]:
    """Yield a long line in pieces, cut after spaces, or anywhere where there are none."""
    while len(line) > LINE_CHARACTERS:
        end = line.rfind(" ", 0, LINE_CHARACTERS) + 1 or LINE_CHARACTERS
        yield line[:end]
        line = line[end:]
    yield line
