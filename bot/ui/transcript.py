"""The attached file that has the texts of a continuation in full, written and read back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_BAR: Final = re.compile(r"\n\n(?P<bar>-{5,}) 1 (?P=bar)\n")


def join_transcript(heading: str, texts: Sequence[str]) -> str:
    """Join texts under numbered lines, which are longer than any line like them in the texts."""
    runs = (len(run) for text in texts for run in re.findall("-+", text))
    bar = "-" * max(5, *(run + 1 for run in runs), 5)
    numbered = "".join(f"{bar} {number} {bar}\n{text}\n" for number, text in enumerate(texts, 1))
    return f"{' '.join(heading.splitlines())}\n\n{numbered}"


def split_transcript(file: str) -> list[str]:
    """Return the texts that `join_transcript` joined; none if the file is no transcript."""
    begin = _BAR.search(file)
    if begin is None:
        return []
    texts: list[str] = []
    rest, bar = file[begin.end() :].removesuffix("\n"), begin["bar"]
    while f"\n{bar} {len(texts) + 2} {bar}\n" in rest:
        text, _, rest = rest.partition(f"\n{bar} {len(texts) + 2} {bar}\n")
        texts.append(text)
    return [*texts, rest]
