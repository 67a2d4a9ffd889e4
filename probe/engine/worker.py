"""The one loop: schedule -> transport -> recorder, in a process of its own.

Run as `python -m probe.engine.worker`. In: orders on an inherited connection, and the recorder's memfd. Out: columns in
shared memory. Nothing else happens here, because whatever else happened would delay queries.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from probe.book import Book, pattern
from probe.engine.pauses import Pauses
from probe.engine.plan import Catalogue, Channels, EngineOptions, Orders, has_rows, raise_soft_limit
from probe.errors import DnsprobeError, EnvironmentProblem
from probe.linux import die_with_parent, enter_network, fine_timers
from probe.model import Series
from probe.outcome import Counter
from probe.questions import CHANNEL_BITS, Questions
from probe.recorder import MOST_SERVERS, Recorder, Room, Rows
from probe.schedule import Agenda
from probe.transport import TRANSPORTS
from probe.transport.rows import EMPTY, NEVER, Due, Finished, Harvest, Transport

CHUNK_NS, CHUNK_LEAST, CHUNK_MOST = 15_000_000, 64, 1536
"""Rows are prepared ahead for this long, within these bounds: a larger chunk would itself be a stall."""
HORIZON_NS, SLOW_HORIZON_NS = 100_000_000, 160_000_000
"""How far ahead rows are prepared at the most; more than twice as far as it is from one look to the next."""
JUDGE_NS = 20_000_000
JUDGE_LEAST = 512
"""Replies are judged when as many wait as come in CHUNK_NS, but this many at the least."""
CLOSED_ROWS = 1024
"""A closed loop prepares, and judges, so many rows at a time: where no core is idle, more fit no cache."""
CLOSED_NS = 20_000
"""How often a closed loop looks for replies: it blocks in between, so that it takes no core from the server."""
PAUSED_NS = 2_000_000
"""How often a closed loop with pauses looks for replies: errors have no stamp, and count from when they are read."""
SLOW_START = 32
"""What a closed loop sends before the first reply."""
CATCH_UP_ROWS, CATCH_UP_SPEED = 100, 3
"""Late rows are sent by so many, and so many times as fast as they were due: a server's default buffer holds 256."""
CREDIT_ROWS = 32
"""A closed loop with a window of more than eight times as many sends so many rows together at the least."""
ORDERS_NS = 20_000_000
EXACT_BELOW = 2_000
"""Below this rate each row has its own wake-up; above, rows wait for the next tick."""
SLOW_BELOW, SLOW_NS = 20, 70_000_000
"""Below this rate nothing is done more often but sending, reading what has come, and obeying: a prober on every node
must cost them nothing."""
GATHER_NS = 1_000_000
"""A burst waits so long for its last row at the most."""
RETIRE_NS = 1_000_000_000
"""How long after the last timeout of its rows a channel's sockets are closed."""
BEHIND_NS = 1_000_000_000
"""After a longer stall each chunk is recorded at once: no record spans more seconds than the recorder has places."""
STALL_ROWS, STALL_LEAST_NS, STALL_MOST_NS = 512, 5_000_000, 50_000_000
"""A row is given up when it is late by STALL_ROWS rows, within these bounds."""


Ints = NDArray[np.int64]


@dataclass(slots=True)
class _Closed:
    """A series without a schedule, and how many of its rows were loaded."""

    series: Series
    asked: int = 0


@dataclass(slots=True)
class _Path:
    """A transport with the agenda of the series that use it, and those that have none: closed loops."""

    transport: Transport
    agenda: Agenda
    closed: dict[int, _Closed] = field(default_factory=dict)
    window: int = 0
    """How many rows of the closed loops may be outstanding."""
    hold_until: int = 0
    """Rows that are late are not sent before: all at once they would overrun the server's receive buffer."""
    answered: int = 0
    """How many rows are done, as far as a closed loop asks."""
    opened: bool = False
    """Whether any channel uses it."""
    pauses: Pauses | None = None
    """Of closed loops with a pause, which have a path of their own: their rows are known one by one, not ahead."""

    @property
    def credit(self) -> int:
        """How many rows of closed loops may be sent now: replies that were read count, judged or not.

        At first few, then one more for each reply, so that no server's receive buffer is overrun by the start.
        """
        return min(self.window, SLOW_START + self.answered) - (self.transport.in_flight - self.transport.pending)

    @property
    def has_news(self) -> bool:
        """Whether outcomes came that a closed loop with a pause should know of."""
        transport, pauses = self.transport, self.pauses
        return pauses is not None and (transport.pending > 0 or transport.in_flight < pauses.waiting)


class Worker:
    """One worker's transports, recorder and loop."""

    def __init__(self, room: Room, options: EngineOptions) -> None:
        random = np.random.default_rng(options.seed)
        self._options = options
        self._questions = Questions(int(random.integers(1 << 62)), MOST_SERVERS)
        self._catalogue = Catalogue()
        self._channels = Channels()
        self._recorder = Recorder(room)
        self._paths = {
            name: _Path(transport(self._questions, random, options.receive_buffer), Agenda())
            for name, transport in TRANSPORTS.items()
        }
        self._exact, self._chunk, self._judge_rows, self._least_credit = True, CHUNK_LEAST, JUDGE_LEAST, 1
        self._judge_ns, self._horizon_ns = JUDGE_NS, HORIZON_NS
        # what series s asks in turn: count questions from first on, by _asked, or, of a book, one after the other
        self._asked, self._first_asked, self._count_asked = EMPTY, EMPTY, EMPTY
        self._is_book = np.zeros(0, np.bool_)
        self._used: list[_Path] = []
        self._catch_up_ns = 0
        self._bursts: dict[int, tuple[int, float]] = {}
        self._channel_of = np.zeros(0, np.int64)
        self._first_of_channel: dict[int, int] = {}
        self._open: dict[int, dict[int, Series]] = {}
        self._t0 = 0
        self._until = 0
        """The end of the last series there ever was: until then more may be added (ns since t0)."""
        self._look_at = 0
        self._is_told = True
        """Somebody may still give orders."""
        self._news = select.epoll()
        """Orders and replies that are read at once. One low descriptor for them all: select(), which alone waits for
        microseconds, takes none above 1,023."""

    def add(self, series: tuple[Series, ...]) -> None:
        """Open the channels of new series and put them on the agenda. DnsprobeError if that cannot be done."""
        grown = np.full(series[-1].index + 1, -1)
        grown[: len(self._channel_of)] = self._channel_of
        self._channel_of = grown
        for each in series:
            self._questions.add(self._catalogue.add(each))
            if isinstance(each.questions, Book):
                first, count = self._catalogue.first(each.questions), len(each.questions)
            else:
                numbers = self._catalogue.numbers(each)
                turns = pattern(each.weights) if each.weights else range(len(numbers))
                first, count = len(self._asked), len(turns)
                self._asked = np.append(self._asked, np.array([numbers[turn] for turn in turns], np.int64))
            self._first_asked, self._count_asked = (
                np.append(self._first_asked, first),
                np.append(self._count_asked, count),
            )
            self._is_book = np.append(self._is_book, isinstance(each.questions, Book))
        for channel, mine in self._channels.of([each for each in series if has_rows(each)]):
            self._first_of_channel[channel.index] = mine[0].index
            self._open[channel.index] = {s.index: s for s in mine}
            self._channel_of[[s.index for s in mine]] = channel.index
            path = self._path_of(mine[0])
            path.transport.open(channel)
            if not path.opened and (fd := path.transport.readable()) is not None:
                self._news.register(fd, select.EPOLLIN)
            path.opened = True
            if channel.gso > 1:
                self._bursts[channel.index] = (channel.gso, channel.rate)
            for each in mine:
                path.agenda.add(each)
                if path.pauses:
                    path.pauses.add(each)
                elif each.shape.window:
                    path.closed[each.index] = _Closed(each)
                    path.window += each.shape.window
        self._until = max([self._until, *(s.stop_ns for s in series)])
        self._recorder.series = len(self._count_asked)
        rate = max(sum(p.agenda.rate for p in self._paths.values()), 1.0)
        self._used = [path for path in self._paths.values() if path.opened] or list(self._paths.values())
        window = sum(path.window for path in self._used)
        self._exact = rate < EXACT_BELOW and window <= CREDIT_ROWS
        self._chunk = int(min(max(rate * CHUNK_NS / 1e9, CHUNK_LEAST), CHUNK_MOST))
        self._judge_rows = max(self._chunk, JUDGE_LEAST)
        self._least_credit = max(1, min(window // 8, CREDIT_ROWS))
        if window:
            self._judge_rows = CLOSED_ROWS if window > CREDIT_ROWS else 1
        self._catch_up_ns = int(CATCH_UP_ROWS / CATCH_UP_SPEED / rate * 1e9)
        self._judge_ns = min([JUDGE_NS, *(path.pauses.beat_ns for path in self._used if path.pauses)])
        is_slow = rate < SLOW_BELOW and not window and not any(path.pauses for path in self._used)
        self._least_ns, self._horizon_ns = (SLOW_NS, SLOW_HORIZON_NS) if is_slow else (0, HORIZON_NS)
        for path in self._paths.values():
            path.transport.stall_ns = int(min(max(STALL_ROWS / rate * 1e9, STALL_LEAST_NS), STALL_MOST_NS))

    def _path_of(self, series: Series) -> _Path:
        """The path that a series' rows take."""
        plain = self._paths[series.transport]
        if not series.shape.pause_ns:
            return plain
        name = f"{series.transport} with pauses"
        if name not in self._paths:
            self._paths[name] = _Path(plain.transport.another(), Agenda(), pauses=Pauses())
        return self._paths[name]

    def facts(self) -> dict[str, str]:
        """What was granted and chosen, for the report."""
        gso = max((series.gso for channel in self._open.values() for series in channel.values()), default=1)
        tick = "exact" if self._exact else f"{self._options.tick_ns // 1000} us"
        facts = {"tick": tick, "gso": str(gso) if gso > 1 else "off"}
        for path in self._paths.values():
            for name, granted in path.transport.facts().items():
                facts[name] = min(facts.get(name, granted), granted, key=int)
        return facts

    def warm_up(self) -> None:
        """Do once what the first rows would otherwise wait for."""
        for path in self._paths.values():
            path.transport.read(time.monotonic_ns())
        for _ in self._judge(list(self._paths.values())):
            pass
        one, zero = np.ones(1, np.int64), np.zeros(1, np.int64)
        scratch, memory = Room.create(1, 1)
        os.close(memory)
        good = zero > 0
        rows = Rows(zero, zero, zero, zero, zero, good, zero, one, one, one, zero, zero, zero, zero)
        Recorder(scratch).record(zero, zero, rows, lambda _: 0)
        head = np.zeros((1, self._questions.width), np.uint8)
        self._questions.classify(head, one, zero, zero, zero, lambda _: b"")
        gc.collect()
        gc.freeze()
        gc.disable()

    # -- the loop

    def run(self, orders: Connection, t0: int) -> None:
        """Until every schedule is over and every row has its outcome. t0 is CLOCK_MONOTONIC ns."""
        self._t0 = t0
        self._news.register(orders.fileno(), select.EPOLLIN)
        read_at = judge_at = orders_at = time.monotonic_ns()
        while True:
            paths = self._used
            self._send(paths)
            due = self._next_due(paths)
            now = time.monotonic_ns()
            if now < min(due, read_at, judge_at, orders_at):
                if self._wait(paths, orders, min(due, read_at, judge_at, orders_at) - now):
                    orders_at = now
                continue
            if now >= read_at:
                self._read(paths, now)
                read_at = now + max(self._least_ns, min(self._read_every(path) for path in paths))
            self._end_closed(paths, now)
            for _ in self._judge([path for path in paths if path.has_news]):
                self._send(paths)
            reached = self._reached(paths, now)
            behind = reached < now - self._t0 - BEHIND_NS
            if behind or now >= judge_at or sum(p.transport.pending for p in paths) >= self._judge_rows:
                for _ in self._judge(paths):
                    self._read([path for path in paths if path.closed], time.monotonic_ns())
                    self._send(paths)
                judge_at = now + max(self._least_ns, self._judge_ns)
                done = self._is_done(paths)
                self._recorder.reached(reached, done=done)
                if done:
                    return
            if now >= orders_at:
                orders_at = now + max(self._least_ns, ORDERS_NS)
                self._obey(orders)
                self._look_after_sockets(now)

    @staticmethod
    def _read(paths: list[_Path], now: int) -> None:
        for path in paths:
            path.transport.read(now)

    def _next_due(self, paths: list[_Path]) -> int:
        """When there is something to send; of a closed loop that is known when replies are read."""
        return min(
            NEVER if p.closed
            else p.pauses.next_ns + self._t0 if p.pauses
            else max(p.transport.next_due, p.hold_until)
            for p in paths
        )  # fmt: skip

    def _read_every(self, path: _Path) -> int:
        """How long replies may wait. Above EXACT_BELOW waking up for each would cost more than the rest."""
        if path.closed:
            return CLOSED_NS
        if path.pauses:
            return PAUSED_NS
        if path.transport.readable() is not None and not self._exact:
            return self._options.tick_ns
        return path.transport.read_every_ns

    def _end_closed(self, paths: list[_Path], now: int) -> None:
        """Closed loops whose series are over send no more."""
        for path in paths:
            over = [i for i, closed in path.closed.items() if closed.series.stop_ns <= now - self._t0]
            for index in over:
                path.window -= path.closed.pop(index).series.shape.window
            if over:
                path.transport.drop()
                path.agenda.reached = max(path.agenda.reached, now - self._t0)

    def _send(self, paths: list[_Path]) -> None:
        """Send what is due, and prepare what comes next."""
        for path in paths:
            transport = path.transport
            if path.closed:
                if (credit := path.credit) >= self._least_credit:
                    transport.send(NEVER, credit)
            elif path.pauses:
                self._send_paused(path, path.pauses)
                continue
            elif path.hold_until <= (now := time.monotonic_ns()):
                sent = transport.send(now, CATCH_UP_ROWS)
                if sent >= CATCH_UP_ROWS and transport.next_due <= now:
                    path.hold_until = now + self._catch_up_ns
            if transport.next_due == NEVER:
                self._load(path)

    def _send_paused(self, path: _Path, pauses: Pauses) -> None:
        """Send for the slots whose pause is over."""
        if rows := pauses.take(time.monotonic_ns() - self._t0):
            series, nth = np.array(rows, np.int64).T
            at = np.full(len(rows), NEVER - 1)
            self._hand_over(path, at, series, nth, at)
            path.transport.send(NEVER)

    def _judge(self, paths: list[_Path]) -> Iterator[None]:
        """Harvest and record, in steps between which rows can be sent."""
        for path in paths:
            path.transport.settle()
            yield
            harvest = path.transport.harvest()
            yield
            self._record(harvest, path.transport)
            path.answered += len(harvest.finished.due)
            if path.pauses:
                path.pauses.done(harvest.finished, self._t0, time.monotonic_ns())
            yield

    def _wait(self, paths: list[_Path], orders: Connection, nanoseconds: int) -> bool:
        """Until then, or a reply, or an order: whether there is one."""
        if nanoseconds <= 0:
            return False
        if not self._exact:
            time.sleep(nanoseconds / 1e9)
            return False
        if not select.select([self._news], [], [], nanoseconds / 1e9)[0]:
            return False
        ready, now = [fd for fd, _ in self._news.poll(0)], time.monotonic_ns()
        for path in paths:
            if path.transport.readable() in ready:
                path.transport.read(now)
        return orders.fileno() in ready

    def _load(self, path: _Path) -> None:
        now = time.monotonic_ns() - self._t0
        if path.closed:
            self._load_closed(path, now)
            return
        if path.agenda.reached >= now + self._horizon_ns // 2:
            return
        batch = path.agenda.take(now + self._horizon_ns, self._chunk)
        if len(batch.due):
            due = batch.due + self._t0
            tick = 1 if self._exact else self._options.tick_ns
            self._hand_over(path, due, batch.series, batch.nth, -(-due // tick) * tick)

    def _load_closed(self, path: _Path, now: int) -> None:
        """The next rows of closed loops, in turn; they are sent when there is room for them."""
        going = [c for c in path.closed.values() if c.series.start_ns <= now < c.series.stop_ns]
        each = CLOSED_ROWS // max(len(going), 1)
        for closed in going:
            closed.asked += each
        if going:
            rows = np.arange(each * len(going))
            series = np.array([c.series.index for c in going])[rows % len(going)]
            first = np.array([c.series.share.index + c.series.share.of * (c.asked - each) for c in going])
            step = np.array([c.series.share.of for c in going])
            nth = first[rows % len(going)] + step[rows % len(going)] * (rows // len(going))
            at = np.full(len(rows), NEVER - 1)
            self._hand_over(path, at, series, nth, at)

    def _hand_over(self, path: _Path, due: Ints, series: Ints, nth: Ints, release: Ints) -> None:
        """Give a transport its next rows: those of one release stand together by channel."""
        turn = nth % self._count_asked[series]
        question = self._first_asked[series] + turn
        listed = ~self._is_book[series]
        question[listed] = self._asked[question[listed]]
        channel = self._channel_of[series]
        rows = Due(due, series, question, channel, nth << CHANNEL_BITS | channel, release)
        if self._bursts and release is not due:
            release = self._gathered(release, channel)
        if len(self._open) > 1 and not self._exact:
            order = np.lexsort((channel, release))
            rows = Due(*(column[order] for column in rows))
        path.transport.load(rows)

    def _gathered(self, release: Ints, channel: Ints) -> Ints:
        """When rows leave that go in bursts: a burst with the last of its rows, if that is soon."""
        for index, (burst, rate) in self._bursts.items():
            mine = np.flatnonzero(channel == index)
            if len(mine) and burst / rate * 1e9 <= GATHER_NS:
                last = np.minimum(np.arange(len(mine)) // burst * burst + burst - 1, len(mine) - 1)
                release[mine] = release[mine[last]]
        return release

    def _record(self, harvest: Harvest, transport: Transport) -> None:
        started, finished = harvest.started, harvest.finished
        if len(started.due) or len(finished.due):
            rows = self._rows(finished)
            self._recorder.record(started.series, started.due - self._t0, rows, transport.source_port)
            if finished.server.any():
                named = finished.server > 0
                columns = finished.series[named], finished.due[named] - self._t0, finished.server[named]
                self._recorder.answered_by(*columns, self._questions.servers)
            lag = started.sent - started.due
            self._recorder.lag(lag if started.sent.all() else lag[started.sent > 0])
        if not harvest.counters.any():
            return
        for channel in np.flatnonzero(harvest.counters.any(axis=1)).tolist():
            self._recorder.count(self._first_of_channel[channel], harvest.counters[channel])

    def _rows(self, f: Finished) -> Rows:
        good = self._questions.good(f.question, f.outcome)
        latency, rtt = np.maximum(f.received - f.due, 0), np.maximum(f.received - f.sent, 0)
        replied = f.received > 0
        if not (good.all() and replied.all()):
            latency, rtt = np.where(replied & good, latency, -1), np.where(replied, rtt, -1)
        connected = f.connect_ns > 0
        return Rows(
            series=f.series,
            question=f.question,
            due=f.due - self._t0,
            sent=f.sent - self._t0,
            outcome=f.outcome,
            good=good,
            cause=f.cause,
            latency=latency,
            rtt=rtt,
            connect=np.where(connected, f.connect_ns, -1) if connected.any() else None,
            errno=f.errno,
            phase=f.phase,
            source=f.source,
            query_id=f.query_id,
        )

    def _reached(self, paths: list[_Path], now: int) -> int:
        """Rows due before this instant (ns since t0) have started: the next harvest has them all."""
        return min(
            now - self._t0 if p.closed or p.pauses else min(p.agenda.reached, p.transport.started_until - self._t0)
            for p in paths
        )

    def _is_done(self, paths: list[_Path]) -> bool:
        """Nothing loaded, nothing in flight, nothing to come, and nobody may add anything."""
        if time.monotonic_ns() - self._t0 < self._until:
            return False
        return not any(
            p.transport.in_flight or p.transport.next_due != NEVER or p.agenda.peek() is not None for p in paths
        )

    def _obey(self, orders: Connection) -> None:
        """Carry out what the parent asks meanwhile; stop when it is gone."""
        try:
            while self._is_told and orders.poll():
                order: Orders = orders.recv()
                if order.add:
                    self.add(order.add)
                for series in order.end:
                    path = self._path_of(series)
                    path.agenda.end(series)
                    if path.pauses:
                        path.pauses.end(series)
                    if series.index in path.closed:
                        path.closed[series.index].series = series
                    mine = self._open.get(int(self._channel_of[series.index]), {})
                    if series.index in mine:
                        mine[series.index] = series
                if order.last_ns:
                    self._until = order.last_ns
                if order.stop:
                    self._stop()
        except EOFError:
            self._is_told = False
            self._news.unregister(orders.fileno())
            self._stop()

    def _stop(self) -> None:
        self._until = 0
        for path in self._paths.values():
            path.agenda.clear()
            path.closed.clear()
            if path.pauses:
                path.pauses.clear()
            path.window = 0
            path.transport.drop()

    def _look_after_sockets(self, now: int) -> None:
        """Once a second: what our own receive buffers dropped; and channels whose series are over are closed."""
        if now < self._look_at:
            return
        self._look_at = now + 1_000_000_000
        for path in self._paths.values():
            drops = path.transport.own_drops()
            for channel in np.flatnonzero(drops).tolist():
                counters = np.zeros(len(Counter), np.int64)
                counters[Counter.OWN_DROPS] = drops[channel]
                self._recorder.count(self._first_of_channel[channel], counters)
        for channel, series in list(self._open.items()):
            over = max(s.stop_ns + s.timeout_ns for s in series.values()) + RETIRE_NS
            if over < now - self._t0:
                self._path_of(next(iter(series.values()))).transport.retire(channel)
                del self._open[channel]

    def close(self) -> None:
        """Close all sockets."""
        for path in self._paths.values():
            path.transport.close()


def _enter(namespace: str) -> None:
    """Live in a network namespace from now on. EnvironmentProblem if that cannot be done."""
    try:
        if namespace:
            enter_network(namespace)
    except OSError as error:
        why = f"network namespace {namespace}: cannot be entered: {error.strerror}"
        raise EnvironmentProblem(f"{why}; it must be there, and root may enter it") from None


def main(orders_fd: int, memory_fd: int, parent: int) -> None:
    """Take series and options, say `ready` or what is wrong, wait for t0, run."""
    die_with_parent(signal.SIGKILL, parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    fine_timers()
    raise_soft_limit()
    orders = Connection(orders_fd)
    try:
        options, namespace, places, series = orders.recv()
        try:
            _enter(namespace)
            worker = Worker(Room(memory_fd, options.max_series, places), options)
            worker.add(series)
            worker.warm_up()
        except DnsprobeError as error:
            orders.send(error)
            return
        orders.send(worker.facts())
        t0 = orders.recv()
    except (EOFError, ConnectionError):
        return  # the parent has thought better of it
    worker.run(orders, t0)
    worker.close()


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:4]))
