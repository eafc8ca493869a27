"""A connection whose request heads are bounded while they come in, not only when they are whole."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def bounded(limit: int) -> type[HttpToolsProtocol]:
    """A protocol for uvicorn that closes a connection whose head is not whole after so many bytes."""

    class Bounded(HttpToolsProtocol):
        _seen = 0
        _in_head = True

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._in_head:
                self._seen += len(data)
                if self._seen > limit:
                    self.transport.close()

        def on_message_begin(self) -> None:
            self._in_head, self._seen = True, 0
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._in_head = False
            super().on_headers_complete()

    return Bounded
