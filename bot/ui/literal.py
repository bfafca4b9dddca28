"""Text that Discord shows as it was written: no formatting, no mentions, no links, no emoji made of words.

Discord's parser takes a backslash before punctuation as "this character itself". Characters that always mean
something are escaped everywhere, the others where their company gives them a meaning.
"""

from __future__ import annotations

import re
from typing import Final

_MEANINGFUL: Final = re.compile(
    r"""
      (?P<indent>^[^\S\n]*) (?: (?P<block>[#>+=-]+)             # heading, quote, list, subtext
                              | (?P<number>\d+) (?P<dot>[.)]) ) # numbered list
    | (?P<invite>discord(?:app)?) \. (?=gg|com|me)            # invites are found without a scheme, too
    | (?P<character> [\\*_~|`<\[]                             # emphasis, spoiler, code, mention, masked link
                   | : (?=//|[\w+-]+:)                        # link; emoji by name
                   | & (?=\#?\w+;)                            # character references, in renderers that know them
                   | @ (?=everyone|here) )
    """,
    re.MULTILINE | re.IGNORECASE | re.VERBOSE,
)

# GPT-2 knows every byte and sometimes writes control characters, which Discord drops or refuses. Unicode has pictures
# of them.
_CONTROL_PICTURES: Final = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}


def literal(text: str) -> str:
    """`text` so escaped that Discord's clients show exactly `text`."""
    return _MEANINGFUL.sub(_escaped, text.translate(_CONTROL_PICTURES))


def bold(text: str) -> str:
    """`text` shown as it was written, in bold; nothing where there is nothing to see."""
    # Discord does not read "****" as empty bold, and emphasis does not reach across an empty line.
    return "\n\n".join(f"**{part}**" if part.strip() else part for part in literal(text).split("\n\n"))


def _escaped(match: re.Match[str]) -> str:
    if match["character"]:
        return "\\" + match["character"]
    if match["invite"]:
        return match["invite"] + "\\."
    if match["block"]:
        return match["indent"] + "".join(f"\\{character}" for character in match["block"])
    return f"{match['indent']}{match['number']}\\{match['dot']}"
