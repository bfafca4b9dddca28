"""The matrix products: right, and for a row the same bits whatever is computed beside it."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
import torch
from structlog.testing import capture_logs
from torch.nn import functional
from transformers.activations import ACT2FN

from bot.gpt2.model import linear
from bot.gpt2.model.linear import make_linear, packing_works

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Product = Callable[..., torch.Tensor]

# GPT-2 small's own [out, in], one of the model that ships, and inner dimensions of GPT-2 medium, large and XL.
SHAPES = ((2304, 768), (768, 768), (768, 3072), (96, 32), (64, 1024), (64, 1280), (64, 1600), (64, 6400))
MOST_ROWS = 97
SOME_ROWS = (1, 2, 3, 7, 8, 9, 16, 20, 40, 96, MOST_ROWS)

needs_packing = pytest.mark.skipif(not packing_works(), reason="oneDNN's packed product does not work here")


def layout_known() -> bool:
    weight = torch.arange(128.0 * 64).view(128, 64)
    return linear.packed_rows(make_linear(weight, None), weight) is not None


needs_known_layout = pytest.mark.skipif(not layout_known(), reason="oneDNN keeps weights in another layout here")


@pytest.fixture(autouse=True)
def _threads_and_self_test_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    packing_works.cache_clear()


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize(("out", "inner"), SHAPES)
@pytest.mark.parametrize("biased", [True, False])
def test_is_the_product(out: int, inner: int, *, biased: bool) -> None:
    weight, bias, x = drawn(out, inner), drawn(out) if biased else None, drawn(5, inner)
    expected = functional.linear(x.double(), weight.double(), None if bias is None else bias.double()).float()
    torch.testing.assert_close(make_linear(weight, bias)(x), expected, atol=1e-5 * inner**0.5, rtol=1e-5)


@needs_packing
@pytest.mark.parametrize(("out", "inner"), SHAPES)
def test_a_row_has_the_same_bits_in_any_batch_on_any_number_of_threads(out: int, inner: int) -> None:
    product, x = make_linear(drawn(out, inner), drawn(out)), drawn(MOST_ROWS, inner)
    whole = product(x)
    for threads in (1, 2, 3, 8):
        torch.set_num_threads(threads)
        for rows in SOME_ROWS:
            for start in (0, MOST_ROWS - rows):
                assert torch.equal(product(x[start : start + rows]), whole[start : start + rows]), (threads, rows)


@needs_packing
@pytest.mark.parametrize(("rows", "computed"), [(1, 4), (3, 4), (4, 4), (7, 7), (8, 8), (9, 12), (17, 20), (80, 80)])
def test_rows_are_padded_to_numbers_that_are_fast_and_few(
    rows: int, computed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: list[int] = []
    own = torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(
        torch.ops.mkldnn, "_linear_pointwise", lambda x, *rest: (numbers.append(len(x)), own(x, *rest))[1]
    )
    product = make_linear(drawn(96, 64), None)  # after its self-test
    numbers.clear()
    assert len(product(drawn(rows, 64))) == rows
    assert numbers == [computed] == [linear.padded_rows(rows)]


@pytest.mark.parametrize(("out", "inner"), SHAPES)
def test_the_activation_is_that_of_gpt2(out: int, inner: int) -> None:
    weight, bias, x = drawn(out, inner) / inner**0.5, drawn(out), drawn(9, inner) * 3
    before = functional.linear(x.double(), weight.double(), bias.double())
    expected = ACT2FN["gelu_new"](before).float()
    given = make_linear(weight, bias, activation=linear.gelu_new)(x)
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        given[4], make_linear(weight, bias, activation=linear.gelu_new)(x[4:5])[0], atol=0, rtol=0
    )


def no_operator() -> Product:
    def missing(*_: object) -> torch.Tensor:
        raise NotImplementedError("no such kernel")

    return missing


def wrong_numbers(own: Product) -> Product:
    return lambda *arguments: own(*arguments) * 1.01


def unlike_in_a_crowd(own: Product) -> Product:
    return lambda x, *rest: own(x, *rest) * (1 if len(x) < 16 else 1 + 1e-6)


def unlike_on_one_thread(own: Product) -> Product:
    return lambda *arguments: own(*arguments) * (1 + 1e-6 if torch.get_num_threads() == 1 else 1)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (lambda _: no_operator(), "missing: no such kernel"),
        (wrong_numbers, "its numbers are wrong"),
        (unlike_in_a_crowd, "depends on the batch"),
        (unlike_on_one_thread, "1 threads"),
    ],
)
@needs_packing
def test_pytorchs_own_serves_where_it_fails(
    broken: Callable[[Product], Product], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(2)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", broken(torch.ops.mkldnn._linear_pointwise))
    packing_works.cache_clear()
    weight, bias, x = drawn(96, 64), drawn(96), drawn(3, 64)
    with capture_logs() as logs:
        assert torch.equal(make_linear(weight, bias)(x), functional.linear(x, weight, bias))
    [warning] = logs
    assert warning["log_level"] == "warning"
    assert reason in warning["reason"]


def test_float16_is_close() -> None:
    weight, x = drawn(96, 64), drawn(3, 64)
    half = make_linear(weight, None, "float16")(x)
    assert not torch.equal(half, functional.linear(x, weight))
    torch.testing.assert_close(half, functional.linear(x, weight), atol=0.05, rtol=0.01)


@needs_known_layout
@pytest.mark.parametrize(("out", "inner"), [(50257, 96), (8192, 384), (65, 768), (96, 32)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_a_packed_weight_are_read_where_they_are(out: int, inner: int, dtype: torch.dtype) -> None:
    weight = drawn(out, inner).to(dtype)
    rows = linear.packed_rows(make_linear(weight.float(), None), weight)
    assert rows is not None
    tokens = torch.tensor([0, out - 1, out // 2, 0])
    assert torch.equal(rows[tokens], weight[tokens].float())


@needs_known_layout
def test_rows_of_another_weight_or_layout_are_not_read() -> None:
    weight = drawn(130, 64)
    layer = make_linear(weight, None)
    other = weight.clone()
    other[129, 63] += 1
    assert linear.packed_rows(layer, other) is None
    assert linear.packed_rows(make_linear(weight, None, "float16"), weight) is None


@needs_known_layout
def test_rows_outlive_their_layer() -> None:
    weight = drawn(3000, 256)
    rows = linear.packed_rows(make_linear(weight, None), weight)
    assert rows is not None
    gc.collect()
    torch.ones(4, 3000, 256)  # takes the memory, were it free
    assert torch.equal(rows[torch.arange(3000)], weight)
