"""Pictures of attention: all heads, and one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bot.figures import MAX_HEAD_TOKENS, attention_grid, attention_head
from bot.figures.attention_maps import sink_shares, strongest_heads, without_sink
from tests.figures.builders import caption, causal, drawn, texts, words

if TYPE_CHECKING:
    from bot.figures.attention_maps import Sink

PIECES = words("When Mary and John went home")
SIZE = len(PIECES)


def previous(share: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Make a head that puts so much on the previous token and the rest on the first."""
    weights = np.zeros((SIZE, SIZE), np.float32)
    weights[0, 0] = 1
    for row in range(1, SIZE):
        weights[row, row - 1] += share
        weights[row, 0] += 1 - share
    return weights


def test_a_previous_token_head_is_said_to_be_one() -> None:
    picture = attention_head(previous(0.99), pieces=PIECES, layer=5, head=12, sink="raw")
    assert str(picture.alt) == "Layer 5, head 12: 99% of attention on the previous token, over 6 tokens."
    assert "Layer 5, head 12 (h.4, head index 11 in the code)" in caption(picture)


def test_few_tokens_have_their_values_printed_and_the_future_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    _, figure = drawn(monkeypatch, lambda: attention_head(previous(0.75), pieces=PIECES, layer=1, head=1, sink="raw"))
    printed = [text for text in texts(figure) if text.isdigit()]
    assert len(printed) == SIZE * (SIZE + 1) / 2
    assert {"100", "75", "25", "0"} == set(printed)
    image = np.asarray(figure.axes[0].images[0].get_array())
    above = image[np.triu_indices(SIZE, 1)]
    assert (above == above[0]).all()
    assert not (image[np.tril_indices(SIZE)] == above[0]).all(axis=1).any()


def test_both_axes_name_every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [f" w{i}".encode() for i in range(MAX_HEAD_TOKENS)]
    _, figure = drawn(
        monkeypatch, lambda: attention_head(causal(len(pieces)), pieces=pieces, layer=1, head=1, sink="raw")
    )
    written = texts(figure)
    assert all(written.count(f"·w{i}") == 2 for i in range(MAX_HEAD_TOKENS))


def test_labels_do_not_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [f" word{i}".encode() for i in range(MAX_HEAD_TOKENS)]
    _, figure = drawn(
        monkeypatch, lambda: attention_head(causal(len(pieces)), pieces=pieces, layer=1, head=1, sink="raw")
    )
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text().startswith("·")]
    for index, box in enumerate(boxes):
        assert not any(box.padded(-3).overlaps(other.padded(-3)) for other in boxes[:index])


def test_too_many_tokens_are_refused_with_the_number() -> None:
    size = MAX_HEAD_TOKENS + 1
    with pytest.raises(ValueError, match=str(MAX_HEAD_TOKENS)):
        attention_head(causal(size), pieces=[b"a"] * size, layer=1, head=1, sink="raw")


def test_the_sink_is_taken_out_and_rows_sum_to_one_again() -> None:
    weights = causal(2, 3, 8)
    rest = without_sink(weights)
    assert rest.shape == (2, 3, 7, 7)
    np.testing.assert_allclose(rest.sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(rest[..., 0, 0], 1)
    np.testing.assert_allclose(sink_shares(weights), weights[:, :, 1:, 0].mean(axis=-1))


@pytest.mark.parametrize(("sink", "means"), [("raw", "Mean attention: "), ("removed", "Mean with it: ")])
def test_the_means_are_said_to_be_those_of_all_attention(
    sink: Sink, means: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, figure = drawn(monkeypatch, lambda: attention_head(previous(0.9), pieces=PIECES, layer=1, head=1, sink=sink))
    habits = "92% on the previous token, 28% on the first token, 0% on the same token"
    assert f"{means}{habits}" in texts(figure)


@pytest.mark.parametrize(("sink", "said"), [("raw", False), ("removed", True)])
def test_a_removed_sink_is_explained(sink: Sink, said: bool) -> None:
    head = attention_head(previous(0.3), pieces=PIECES, layer=1, head=1, sink=sink)
    grid = attention_grid(previous(0.3)[None, None], pieces=PIECES, scores={}, sink=sink)
    for picture in (head, grid):
        assert ("by construction" in caption(picture)) is said
        assert "76.0% of the attention" in caption(picture)


def test_tokens_that_the_model_was_not_given_are_counted() -> None:
    for left_out, stated in ((0, False), (34, True)):
        head = attention_head(previous(0.3), pieces=PIECES, layer=1, head=1, sink="raw", left_out=left_out)
        grid = attention_grid(previous(0.3)[None, None], pieces=PIECES, scores={}, sink="raw", left_out=left_out)
        for picture in (head, grid):
            assert ("given only the last 6 of 40 tokens" in caption(picture)) is stated


def test_a_head_that_puts_all_on_the_first_token_leaves_nothing_to_rescale() -> None:
    weights = np.zeros((1, 1, SIZE, SIZE), np.float32)
    weights[..., 0] = 1
    assert np.isnan(without_sink(weights)).all()
    assert attention_grid(weights, pieces=PIECES, scores={}, sink="removed").file


def scores() -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    found = {key: np.zeros((3, 4)) for key in ("previous", "first", "same")}
    found["previous"][2, 3], found["previous"][1, 0] = 0.97, 0.5
    found["first"][0, 1] = 0.99
    found["same"][0, 0] = 0.1
    found["induction"] = np.full((3, 4), np.nan)
    return found


def test_the_strongest_heads_are_named_and_only_the_notable_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    picture, figure = drawn(
        monkeypatch, lambda: attention_grid(causal(3, 4, SIZE), pieces=PIECES, scores=scores(), sink="raw")
    )
    assert (
        "Strongest heads: layer 1, head 2 with 99% of attention on the first token and layer 3, head 4 with 97% of"
        " attention on the previous token." in caption(picture)
    )
    mosaic = figure.axes[0]
    assert sorted(text.get_text() for text in mosaic.texts) == ["F", "P", "P"]
    assert len(mosaic.patches) == 3
    assert "not measured" in texts(figure)
    assert {"3.4", "2.1", "1.2", "1.1"} <= set(texts(figure))


def test_the_text_is_written_as_text_and_not_as_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [b"a", b" \xe7", b"\x8c", b"\xab"]
    _, figure = drawn(monkeypatch, lambda: attention_grid(causal(3, 4, 4), pieces=pieces, scores=scores(), sink="raw"))
    assert "a ·猫" in texts(figure)


def test_a_kind_that_is_not_measured_has_no_head() -> None:
    assert {each.kind.key for each in strongest_heads(scores(), (3, 4))} == {"previous", "same", "first"}


def test_the_strip_shows_every_heads_share(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = causal(3, 4, SIZE)
    _, figure = drawn(monkeypatch, lambda: attention_grid(weights, pieces=PIECES, scores={}, sink="raw"))
    strip = next(axes for axes in figure.axes if axes.get_title() == "on first token")
    dots = np.array([line.get_xdata() for line in strip.lines])
    np.testing.assert_allclose(dots.T, weights[:, :, 1:, 0].mean(axis=-1), rtol=1e-5)


@pytest.mark.parametrize("shape", [(3, SIZE, SIZE), (3, 4, SIZE, SIZE + 1), (3, 4, 2, 2), (0, 4, SIZE, SIZE)])
def test_arrays_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="attention of shape"):
        attention_grid(np.zeros(shape), pieces=PIECES, scores={}, sink="raw")


def test_scores_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="scores"):
        attention_grid(causal(3, 4, SIZE), pieces=PIECES, scores={"first": np.zeros((4, 3))}, sink="raw")


@pytest.mark.parametrize("shape", [(48, 25), (36, 20), (1, 1)])
def test_models_of_any_size_are_shown(shape: tuple[int, int]) -> None:
    picture = attention_grid(causal(*shape, 40), pieces=[b" tok"] * 40, scores={}, sink="raw")
    assert str(picture.alt) == f"Attention maps of {shape[0] * shape[1]} heads over 40 tokens."


def test_missing_numbers_show_the_background() -> None:
    weights = causal(2, 2, SIZE)
    weights[0, 0] = np.nan
    assert attention_grid(weights, pieces=PIECES, scores={}, sink="raw").file
    assert attention_head(weights[0, 0], pieces=PIECES, layer=1, head=1, sink="raw").file
