"""A way to Redis that can be cut and opened again."""

import asyncio
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

from tests.lanes import House


class Proxy:
    """A way to Redis that can be cut; `url` leads there."""

    def __init__(self, house: House) -> None:
        self._house, self._real, self._lines = house, urlsplit(settings.REDIS_URL), set[asyncio.StreamWriter]()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.open()

    @property
    def url(self) -> str:
        who = self._real.netloc.rpartition("@")[0]
        return f"redis://{who}{'@' if who else ''}127.0.0.1:{self.port}/0"

    def open(self) -> None:
        self._house.do(self._open())

    def cut(self) -> None:
        """Nobody listens any more, and who was connected is not."""
        self._house.do(self._cut())

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        assert self._server
        self._server.close()
        for line in self._lines:
            line.transport.abort()
        self._lines.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await _connect(self._real)
        self._lines |= {writer, back}
        await asyncio.gather(_copy(reader, back), _copy(there, writer), return_exceptions=True)


async def _connect(url: Any) -> Any:
    return await (asyncio.open_unix_connection(url.path) if url.scheme == "unix" else asyncio.open_connection(url.hostname, url.port))


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(65536):
        target.write(piece)
    target.close()
