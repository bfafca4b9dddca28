"""The style that can be measured: docstrings in the imperative, short functions, short modules."""

from __future__ import annotations

import ast
import math
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.command_line import ROOT
from tests.test_walls import parsed, statements

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM: Final = ("bot", "cogs")
EVERYTHING: Final = (*PROGRAM, "tools", "benchmarks")
MAX_MODULE_LINES: Final = 450
MAX_FUNCTION_LINES: Final = 23  # of all but the program's longest 5%

# A docstring says what its function does or returns ("Return whether …"), not a question that it answers.
QUESTION_WORDS: Final = frozenset({"what", "whether", "how", "which", "who", "whom", "whose", "where", "when"})
EXCEPTIONS: Final[frozenset[str]] = frozenset()  # "bot/module.py:function"

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Found(NamedTuple):
    """A function and the module that defines it."""

    path: Path
    node: Function

    @property
    def place(self) -> str:
        """Return a name for the list of exceptions."""
        return f"{self.path.relative_to(ROOT).as_posix()}:{self.node.name}"


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def functions(*folders: str) -> Iterator[Found]:
    """Yield every function, nested ones and methods included."""
    for path in modules(*folders):
        left: list[ast.AST] = [parsed(path)]
        while left:
            node = left.pop()
            left += statements(node)
            if isinstance(node, Function):
                yield Found(path, node)


def is_command(found: Found) -> bool:
    """Return whether Discord shows the docstring, as the description of a command."""
    called = (each.func if isinstance(each, ast.Call) else each for each in found.node.decorator_list)
    return found.path.is_relative_to(ROOT / "cogs") and any(
        isinstance(each, ast.Attribute) and each.attr in {"command", "context_menu"} for each in called
    )


def first_word(found: Found) -> str:
    docstring = ast.get_docstring(found.node) or ""
    return docstring.partition(" ")[0].rstrip(".,:;").lower()


def test_docstrings_do_not_begin_with_a_question_word() -> None:
    found = [each for each in functions(*EVERYTHING) if not is_command(each)]
    asking = {each.place for each in found if first_word(each) in QUESTION_WORDS}
    assert asking <= EXCEPTIONS, "\n".join(sorted(asking - EXCEPTIONS))
    assert asking == EXCEPTIONS, "these exceptions are no longer needed"


def test_modules_are_short() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules("bot")}
    assert not {path.name: lines for path, lines in lengths.items() if lines > MAX_MODULE_LINES}


def test_functions_are_short() -> None:
    lengths = sorted((each.node.end_lineno or 0) - each.node.lineno + 1 for each in functions(*PROGRAM))
    assert lengths[math.ceil(0.95 * len(lengths)) - 1] <= MAX_FUNCTION_LINES
