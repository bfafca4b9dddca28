"""A replica's health, without a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bot.errors import DeviceLostError
from bot.gpt2.cluster import protocol
from bot.gpt2.local.sequences import SequenceGroup
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from tests.loopback.losing import ERROR
from tests.ray_cluster import needs_ray

if TYPE_CHECKING:
    from bot.gpt2.local.engine import LocalEngine

pytestmark = [needs_ray, pytest.mark.filterwarnings("ignore")]  # of Ray's libraries


async def test_a_replica_without_its_gpu_fails_its_health_check(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bot.gpt2.cluster.deployment import Replica  # noqa: PLC0415 # needs the extra

    def attend(*_: object) -> None:
        raise RuntimeError(ERROR)

    # Without its constructor and `__del__`, which need Ray Serve.
    methods = {name: value for name, value in vars(Replica).items() if not name.startswith("__")}
    replica: Any = type("Alone", (), methods)()
    replica._engine, replica._name = engine, "one"
    await replica.check_health()
    monkeypatch.setattr(SequenceGroup, "attend", attend)
    request = protocol.encode(ContinuationRequest("Hello", SamplingParams(1, samples=1, length=5)))
    for _ in range(2):
        with pytest.raises(DeviceLostError):  # so that the dispatcher asks another replica
            [frame async for frame in replica.generate(request, None)]
    with pytest.raises(DeviceLostError, match="illegal memory access"):
        await replica.check_health()
