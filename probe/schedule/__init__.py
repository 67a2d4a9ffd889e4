"""Rates -> due instants in integer nanoseconds, a chunk at a time, whatever became of earlier queries."""

from __future__ import annotations

from probe.schedule.agenda import Agenda, Batch
from probe.schedule.course import Course
from probe.schedule.pacers import PACERS, Constant, Pacer, pacer_of, phase

__all__ = ["PACERS", "Agenda", "Batch", "Constant", "Course", "Pacer", "pacer_of", "phase"]
