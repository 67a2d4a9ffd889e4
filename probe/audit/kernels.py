"""A node's kernel and system -> whether IPVS drops what goes to a UDP server that is gone, though told to expire it.

Mended in Linux 5.9 (`ipvs: queue delayed work to expire no destination connections if expire_nodest_conn=1`), and in
some vendors' kernels before: Alibaba Cloud's notes on upgrading CoreDNS, Huawei CCE's FAQ on IPVS.
"""

from __future__ import annotations

import re
from enum import Enum

_MENDED = (5, 9)
_VENDORS = (
    (r"\.al7\.", (4, 19, 91, 25, 1)),
    (r"eulerosv2r9\.x86_64", (4, 18, 0, 147, 5, 1, 6)),
    (r"eulerosv2r9\.aarch64", (4, 19, 90)),
)
"""Part of a kernel's name, and the first that is mended; of EulerOS its build counts, too (_EULER)."""
_EULER = {"x86_64": ("h", 998), "aarch64": ("h", 990)}
_AFFECTED = re.compile(r"CentOS|Ubuntu 1[0-9]\.|EulerOS|Alibaba Cloud Linux|Aliyun Linux")
"""Systems of which it is said that their older kernels have no such patch."""


class Ipvs(Enum):
    """What such a kernel does."""

    MENDED = "mended"
    DROPS = "drops"
    UNKNOWN = "unknown"


def ipvs_of(kernel: str, system: str) -> Ipvs:
    """`4.19.91-24.1.al7.x86_64`, `Alibaba Cloud Linux (Aliyun Linux) 2.1903 LTS` -> DROPS."""
    numbers = tuple(
        int(part) for part in re.findall(r"[0-9]+", kernel.partition(".x86_64")[0].partition(".aarch64")[0])
    )
    if len(numbers) < 2:
        return Ipvs.UNKNOWN
    if numbers[:2] >= _MENDED:
        return Ipvs.MENDED
    for part, first in _VENDORS:
        if re.search(part, kernel):
            return Ipvs.MENDED if numbers[: len(first)] >= first and _built(kernel) else Ipvs.DROPS
    return Ipvs.DROPS if _AFFECTED.search(system) else Ipvs.UNKNOWN


def _built(kernel: str) -> bool:
    """EulerOS counts the builds of a version: `4.18.0-147.5.1.6.h998.eulerosv2r9.x86_64`."""
    build = re.search(r"\.h([0-9]+)\.eulerosv2r9\.(x86_64|aarch64)", kernel)
    return build is None or int(build[1]) >= _EULER[build[2]][1]
