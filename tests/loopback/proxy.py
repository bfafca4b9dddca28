"""An HTTP proxy on 127.0.0.1 with one server behind it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def http_proxy(server: str) -> AsyncIterator[tuple[str, bytearray]]:
    """Yield a proxy's ``127.0.0.1:PORT``, and all that it has been sent.

    Args:
        server: The address behind it, ``http://127.0.0.1:PORT``.
    """
    behind, sent = urlsplit(server), bytearray()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(1 << 16):
                record += chunk
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The server takes requests with whole addresses as they are.
        onward, back = await asyncio.open_connection(behind.hostname, behind.port)
        await asyncio.gather(relay(reader, back, sent), relay(onward, writer, bytearray()))

    async with await asyncio.start_server(connect, "127.0.0.1") as proxy:
        yield f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}", sent
