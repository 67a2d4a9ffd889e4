"""Rows out, finished rows back: the ways of putting queries on the wire, by the name that lanes use.

A new one is a class after `rows.Transport` and a line here; tests/test_transport.py is its contract.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from probe.questions import Questions
from probe.transport.beside import Connect, Http
from probe.transport.rows import Transport
from probe.transport.tcp import Tcp
from probe.transport.udp import Udp

TRANSPORTS: dict[str, Callable[[Questions, np.random.Generator, int], Transport]] = {
    "udp": Udp,
    "tcp": Tcp,
    "connect": Connect,
    "http": Http,
}
"""Each is made with the run's questions, a source of randomness and the receive buffer to ask for, in bytes."""
