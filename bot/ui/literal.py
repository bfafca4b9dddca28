"""Escaping: text that Discord shows as it was written, without formatting, mentions, links or emoji.

In Discord's Markdown a backslash before punctuation makes it literal. Characters that are always special are escaped
everywhere, the others only in a special context.
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
                   | & (?=\#?\w+;)                            # character references, which some renderers resolve
                   | @ (?=everyone|here) )
    """,
    re.MULTILINE | re.IGNORECASE | re.VERBOSE,
)

# GPT-2 sometimes writes control characters, which Discord drops or refuses; Unicode has pictures of them.
_CONTROL_PICTURES: Final = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}


def literal(text: str) -> str:
    """Escape a text so that Discord's clients show exactly that text."""
    return _MEANINGFUL.sub(_escaped, text.translate(_CONTROL_PICTURES))


def bold(text: str) -> str:
    """Escape a text and set it in bold, paragraph by paragraph; leave blank ones as they are."""
    # Discord does not read "****" as empty bold, and emphasis ends at an empty line.
    return "\n\n".join(f"**{part}**" if part.strip() else part for part in literal(text).split("\n\n"))


def _escaped(match: re.Match[str]) -> str:
    if match["character"]:
        return "\\" + match["character"]
    if match["invite"]:
        return match["invite"] + "\\."
    if match["block"]:
        return match["indent"] + "".join(f"\\{character}" for character in match["block"])
    return f"{match['indent']}{match['number']}\\{match['dot']}"
