"""Finished rows -> time-bucketed columns in shared memory; recorders of several workers add."""

from __future__ import annotations

from probe.recorder.reader import Reader
from probe.recorder.room import BUCKETS, MOST_SERVERS, Answered, Columns, Duration, Flush, Room, Scalar, places_for
from probe.recorder.sums import Sum
from probe.recorder.writer import Recorder, Rows

__all__ = [
    "BUCKETS",
    "MOST_SERVERS",
    "Answered",
    "Columns",
    "Duration",
    "Flush",
    "Reader",
    "Recorder",
    "Room",
    "Rows",
    "Scalar",
    "Sum",
    "places_for",
]
