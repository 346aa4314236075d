"""A DNS server that resolves some names to loopback addresses, and remembers what was asked."""

from __future__ import annotations

import socket
import struct
import threading
from typing import Self

_HEADER_BYTES = 12
_TYPE_A = 1
_NAME_ERROR = 3


class DnsServer:
    """Answers over UDP, from a thread.

    Attributes:
        names: the names that exist, in lower case, with their addresses.
        asked: the names that were asked for.
    """

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.asked: set[str] = set()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            question, peer = self._socket.recvfrom(4096)
            if not question:
                return
            self._socket.sendto(self._answer(question), peer)

    def _answer(self, query: bytes) -> bytes:
        labels, place = [], _HEADER_BYTES
        while length := query[place]:
            labels.append(query[place + 1 : place + 1 + length].decode().lower())
            place += 1 + length
        question = query[_HEADER_BYTES : place + 5]
        (kind,) = struct.unpack(">H", query[place + 1 : place + 3])
        name = ".".join(labels)
        self.asked.add(name)
        address = self.names.get(name)
        found = address is not None and kind == _TYPE_A
        flags = 0x8180 | (_NAME_ERROR if address is None else 0)
        header = query[:2] + struct.pack(">HHHHH", flags, 1, int(found), 0, 0)
        record = b""
        if found and address is not None:
            record = struct.pack(">HHHIH", 0xC00C, _TYPE_A, 1, 1, 4) + socket.inet_aton(address)
        return header + question + record
