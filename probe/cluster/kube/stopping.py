"""A Job's name -> its pods are told to stop, and each says when it has heard it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from lightkube.resources.batch_v1 import Job

from probe.cluster.kube.api import Api, Selection
from probe.cluster.kube.board import STOP, STOPPED, Board, now_text, pods_of, said_of
from probe.cluster.kube.objects import name_of
from probe.errors import EnvironmentProblem

_OFTEN = 0.5


async def stop_job(api: Api, namespace: str, name: str, patience: float) -> AsyncIterator[str]:
    """A sentence for the Job and one for each of its pods, as they hear it or are found to have ended.

    EnvironmentProblem if there is no such Job, or for the pods that have not heard it after so many seconds.
    """
    jobs, _ = await api.list(Selection(Job, namespace, name=name))
    if not jobs:
        raise EnvironmentProblem(f"there is no Job {name} in {namespace}: say -n NAMESPACE; see `kubectl get jobs -A`")
    board = Board(api, namespace, name, jobs[0].metadata.uid)
    await board.write(STOP, now_text())
    yield f"job/{name} in {namespace} is told to stop"
    began, told = time.monotonic(), set[str]()
    while True:
        notes = await board.read()
        pods = {name_of(pod): pod for pod in (await api.list(pods_of(namespace, name)))[0]}
        for pod, thing in pods.items():
            ended = thing.status and thing.status.phase in ("Succeeded", "Failed")
            if pod not in told and (ended or f"{STOPPED}{pod}" in notes):
                told.add(pod)
                after = f"after {time.monotonic() - began:.1f} s"
                yield f"pod {pod}: {'stops, ' + after if f'{STOPPED}{pod}' in notes else 'has ended'}"
        deaf = [f"pod {pod} is {said_of(thing)}" for pod, thing in pods.items() if pod not in told]
        if not deaf:
            return
        if time.monotonic() - began > patience:
            raise EnvironmentProblem(f"not heard in {patience:g} s, but it stays on the board: {'; '.join(deaf)}")
        await asyncio.sleep(_OFTEN)
