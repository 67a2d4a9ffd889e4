"""Files and a command -> an image as a tar, which `ctr images import` takes: no registry, no builder.

Source: OCI image specification 1.1, image-layout.md, manifest.md, config.md.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

_TYPE = "application/vnd.oci.image."


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = mode
    tar.addfile(entry, io.BytesIO(content))


def _layer(files: Iterable[Path]) -> bytes:
    """Executables, all at the root, and what everything expects of a root: /tmp and /etc/passwd."""
    octets = io.BytesIO()
    with tarfile.open(fileobj=octets, mode="w") as tar:
        temporary = tarfile.TarInfo("tmp")
        temporary.type, temporary.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(temporary)
        _add(tar, "etc/passwd", b"root:x:0:0:root:/:/none\nnonroot:x:65532:65532:nonroot:/:/none\n")
        for file in files:
            _add(tar, file.name, file.read_bytes(), 0o755)
    return octets.getvalue()


def write(path: Path, name: str, files: Iterable[Path], entrypoint: list[str], user: str = "65532") -> None:
    """Write the image `name` (repository:tag) of this machine's architecture, amd64 or arm64."""
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    layer = _layer(files)
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "User": user, "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    with tarfile.open(path, "w") as tar:
        _add(tar, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{_TYPE}manifest.v1+json",
            "config": _blob(tar, "config.v1+json", json.dumps(config).encode()),
            "layers": [_blob(tar, "layer.v1.tar", layer)],
        }
        entry = _blob(tar, "manifest.v1+json", json.dumps(manifest).encode())
        names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
        index = {"schemaVersion": 2, "manifests": [{**entry, "annotations": names}]}
        _add(tar, "index.json", json.dumps(index).encode())


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _blob(tar: tarfile.TarFile, kind: str, content: bytes) -> dict[str, object]:
    digest = _digest(content)
    _add(tar, f"blobs/{digest.replace(':', '/')}", content)
    return {"mediaType": f"{_TYPE}{kind}", "digest": digest, "size": len(content)}
