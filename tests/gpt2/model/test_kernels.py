"""The kernels for CUDA: without a GPU, what replaces them; with one, their self-test and what they are combined to."""

from __future__ import annotations

import shutil
import subprocess
from importlib import resources
from typing import TYPE_CHECKING

import pytest
import structlog.testing
import torch
from torch.nn import functional

from bot.gpt2.model import kernels, linear
from bot.gpt2.model.linear import CudaLinear, gelu_new

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bot.config import Precision

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device")


@pytest.fixture(autouse=True)
def forget_compiled() -> Iterator[None]:
    """Have the kernels compiled anew in each test."""
    kernels.compiled.cache_clear()
    yield
    kernels.compiled.cache_clear()


@pytest.mark.parametrize(
    "error",
    [
        ImportError("No module named 'cuda'"),
        RuntimeError("CUDA error: nvrtcCompileProgram: NVRTC_ERROR_INVALID_OPTION"),
        OSError("libnvrtc.so.13: cannot open shared object file"),
    ],
    ids=repr,
)
def test_where_they_cannot_be_compiled_the_log_says_so_once(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse() -> None:
        raise error

    monkeypatch.setattr(kernels, "Kernels", refuse)
    with structlog.testing.capture_logs() as logs:
        assert kernels.compiled() is None
        assert kernels.compiled() is None
    (warning,) = logs
    assert warning["log_level"] == "warning"
    assert str(error) in warning["reason"]


def test_a_lack_of_memory_is_no_reason_to_do_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(kernels, "Kernels", refuse)
    with pytest.raises(torch.OutOfMemoryError):
        kernels.compiled()


def test_where_they_are_wrong_they_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "Kernels", object)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    fork_rng = torch.random.fork_rng
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: fork_rng(devices=devices and []))
    monkeypatch.setattr(kernels, "_faults", lambda _: iter(["attention is wrong"]))
    with structlog.testing.capture_logs() as logs:
        assert kernels.compiled() is None
    assert [log["reason"] for log in logs] == ["attention is wrong"]


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("inner", [12, 7])
@pytest.mark.parametrize("activation", [None, gelu_new, torch.relu], ids=["plain", "gelu", "relu"])
def test_without_them_a_layer_computes_the_same(
    monkeypatch: pytest.MonkeyPatch, precision: Precision, inner: int, activation: linear.Activation | None
) -> None:
    monkeypatch.setattr(kernels, "compiled", lambda: None)
    check_layer(torch.device("cpu"), precision, inner, activation)


@needs_cuda
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("inner", [12, 7])
@pytest.mark.parametrize("activation", [None, gelu_new, torch.relu], ids=["plain", "gelu", "relu"])
def test_with_them_too(precision: Precision, inner: int, activation: linear.Activation | None) -> None:
    assert kernels.compiled() is not None
    check_layer(torch.device("cuda"), precision, inner, activation)


def check_layer(device: torch.device, precision: Precision, inner: int, activation: linear.Activation | None) -> None:
    """Compare activation(x · weightᵀ + bias) + residual with double precision."""
    generator = torch.Generator().manual_seed(0)
    weight, bias, x, residual = (
        torch.randn(shape, generator=generator).to(device) for shape in ((9, inner), (9,), (5, inner), (5, 9))
    )
    stored = weight.to(linear.DTYPES[precision])
    expected = functional.linear(x.double(), stored.double(), bias.double())
    if activation:
        expected = activation(expected)
    layer = CudaLinear(weight, bias, precision, activation)
    torch.testing.assert_close(layer(x).double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layer(x, residual).double(), expected + residual.double(), atol=1e-5, rtol=1e-5)


@needs_cuda
def test_they_pass_their_self_test() -> None:
    with structlog.testing.capture_logs() as logs:
        assert kernels.compiled() is not None
    assert not logs


@pytest.mark.skipif(not shutil.which("nvcc"), reason="CUDA's compiler is not installed")
def test_they_compile(tmp_path: Path) -> None:
    """NVRTC compiles them on a machine with a GPU; its errors are those of nvcc."""
    source = tmp_path / "kernels.cu"
    text = resources.files("bot.gpt2.model").joinpath("kernels.cu").read_text(encoding="utf-8")
    for kind in ("float", "Half", "BFloat16"):
        text += (
            f"template __global__ void linear<{kind}, 8, 2>(const float*, const {kind}*, const float*, const float*, "
        )
        text += "float*, int, int, int, int);\n"
    source.write_text(text, encoding="utf-8")
    subprocess.run(
        ["nvcc", "-arch=sm_75", "-std=c++17", "-Werror=all-warnings", "-cubin", source, "-o", tmp_path / "out"],
        check=True,
    )
