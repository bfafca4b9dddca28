from __future__ import annotations

import pytest

from bot.figures.heads import describe, head_spans


def said(start: int, stop: int, width: int = 768, heads: int = 12) -> str:
    return str(describe(head_spans(range(start, stop), width, heads)))


@pytest.mark.parametrize(
    ("start", "stop", "sentence"),
    [
        (0, 300, "This slice is Q alone: 4 whole heads and 44 of the 64 columns of head 5."),
        (0, 64, "This slice is Q alone: one whole head."),
        (10, 20, "This slice is Q alone: 10 of the 64 columns of head 1."),
        (1540, 1700, ("This slice is V alone: one whole head, 60 of the 64 columns of head 1"
                     " and 36 of the 64 columns of head 3.")),
        (704, 832, "This slice covers Q (one whole head) and K (one whole head)."),
        (0, 2304, "This slice covers Q (12 whole heads), K (12 whole heads) and V (12 whole heads)."),
    ],
)  # fmt: skip
def test_a_slice_is_described_by_its_heads(start: int, stop: int, sentence: str) -> None:
    assert said(start, stop) == sentence


def test_spans_cover_the_columns_and_count_heads_from_one() -> None:
    spans = head_spans(range(700, 900), 768, 12)
    assert [(span.part, span.head, span.columns) for span in spans] == [
        ("Q", 11, range(700, 704)),
        ("Q", 12, range(704, 768)),
        ("K", 1, range(768, 832)),
        ("K", 2, range(832, 896)),
        ("K", 3, range(896, 900)),
    ]


@pytest.mark.parametrize(("columns", "width", "heads"), [(range(9), 8, 3), (range(20, 25), 8, 2), (range(0), 8, 2)])
def test_columns_outside_the_matrix_and_heads_that_do_not_fit_are_refused(
    columns: range, width: int, heads: int
) -> None:
    with pytest.raises(ValueError, match="heads"):
        head_spans(columns, width, heads)
