"""The lab's process: requests in, answers and Happened out; the Site runs here, its pods are child processes.

It ends when the other side of its control socket is gone; the keeper then ends the pods.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from probe.cluster import control
from probe.cluster.control import Act, Answer, Build, Built, Done, Message, Refused
from probe.cluster.keeper import sweep
from probe.cluster.leftovers import PREFIX
from probe.cluster.site import ACTIONS, Site
from probe.errors import DnsprobeError, UsageError


def _refused(problem: BaseException) -> Refused:
    return Refused(str(problem), isinstance(problem, UsageError))


async def _carry_out(site: Site, request: Message) -> Answer:
    if not isinstance(request, Act):
        return Refused(f"the lab cannot do {request!r}")
    try:
        return Done(await ACTIONS[request.word](site, request.value))
    except DnsprobeError as problem:
        return _refused(problem)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, folder: Path) -> None:
    """Build, then carry out requests until the other side is gone."""
    build = await control.read(reader)
    if not isinstance(build, Build):
        return
    try:
        site = Site(build, folder, lambda event: control.write(writer, event))
    except DnsprobeError as problem:
        control.write(writer, _refused(problem))
        return

    def say_built(built: asyncio.Future[Built]) -> None:
        if not built.cancelled():
            problem = built.exception()
            control.write(writer, _refused(problem) if problem else built.result())

    async def obey() -> None:
        while (request := await control.read(reader)) is not None:
            control.write(writer, await _carry_out(site, request))

    built: asyncio.Future[Built] = asyncio.get_running_loop().create_future()
    built.add_done_callback(say_built)
    tasks = {asyncio.create_task(job) for job in (site.run(built), obey())}
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    for task in done:
        task.result()


def _cause(problem: Exception) -> str:
    """The first of what went wrong, in one line."""
    while isinstance(problem, ExceptionGroup):
        problem = problem.exceptions[0]
    return " ".join(f"{type(problem).__name__}: {problem}".split())


async def _main(sock: socket.socket, keeper: subprocess.Popen[bytes], folder: Path) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, sock.shutdown, socket.SHUT_RDWR)
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        await _serve(reader, writer, folder)
    except Exception as problem:  # noqa: BLE001  whatever it is: the near end quotes the last line that stands there
        sys.stderr.write(f"{_cause(problem)}\n")
    finally:
        await asyncio.to_thread(keeper.communicate)
        if keeper.returncode:
            sweep(str(folder))
        writer.close()


def main() -> None:
    """`python -m probe.cluster.lab_process FD`: FD is the inherited control socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The keeper first: a folder without one is what `dnsprobe lab down` removes.
    folder = Path(tempfile.gettempdir()) / f"{PREFIX}{secrets.token_hex(4)}"
    keeper = subprocess.Popen(
        [sys.executable, "-m", "probe.cluster.keeper", str(folder)], stdin=subprocess.PIPE, start_new_session=True
    )
    folder.mkdir(mode=0o700)
    asyncio.run(_main(socket.socket(fileno=int(sys.argv[1])), keeper, folder))


if __name__ == "__main__":
    main()
