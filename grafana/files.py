"""The registry of generated files -> their texts under grafana/, written, or compared with what is there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from grafana import rules
from grafana.dashboards import DASHBOARDS
from grafana.dashboards import text as dashboard

FOLDER = Path(__file__).parent


def write(folder: Path = FOLDER) -> list[str]:
    """Write each file whose text is not what it should be; their paths."""
    stale = drifted(folder)
    for name in stale:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FILES[name](), encoding="utf-8")
    return stale


def drifted(folder: Path = FOLDER) -> list[str]:
    """The paths of files that are missing or not what they should be."""
    return [name for name, text in FILES.items() if not _holds(folder / name, text())]


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


FILES: dict[str, Callable[[], str]] = {
    "prometheus/rules.yaml": rules.prometheus,
    "kubernetes/prometheusrule.yaml": rules.kubernetes,
    "provisioning/alerting/rules.yaml": rules.native,
    **{f"dashboards/{name}.json": partial(dashboard, name) for name in DASHBOARDS},
}
"""Paths under grafana/ -> what writes their text."""
