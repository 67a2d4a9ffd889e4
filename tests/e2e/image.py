"""Layers and a command -> an image as a tar, which `ctr images import` takes: no registry, no builder.

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


def layer(files: Iterable[tuple[str, Path]]) -> bytes:
    """Files by their paths in the image, each with its mode and time; its folders may be entered by anybody."""
    octets, folders = io.BytesIO(), set()
    with tarfile.open(fileobj=octets, mode="w") as tar:
        for name, file in files:
            for folder in reversed([str(each) for each in Path(name).parents][:-1]):
                if folder not in folders:
                    folders.add(folder)
                    entry = tarfile.TarInfo(folder)
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(entry)
            status = file.stat()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = status.st_size, status.st_mode & 0o777 | 0o444, int(status.st_mtime)
            with file.open("rb") as content:
                tar.addfile(entry, content)
    return octets.getvalue()


def root() -> bytes:
    """What everything expects of a root: /tmp and /etc/passwd."""
    octets = io.BytesIO()
    with tarfile.open(fileobj=octets, mode="w") as tar:
        temporary = tarfile.TarInfo("tmp")
        temporary.type, temporary.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(temporary)
        _add(tar, "etc/passwd", b"root:x:0:0:root:/:/none\nnonroot:x:65532:65532:nonroot:/:/none\n")
    return octets.getvalue()


def write(path: Path, name: str, layers: Iterable[bytes], entrypoint: list[str], *environment: str) -> None:
    """Write the image `name` (repository:tag) of this machine's architecture, amd64 or arm64; its user is not root."""
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    layers = [root(), *layers]
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "Env": [*environment], "User": "65532:65532", "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [_digest(each) for each in layers]},
    }
    with tarfile.open(path, "w") as tar:
        _add(tar, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{_TYPE}manifest.v1+json",
            "config": _blob(tar, "config.v1+json", json.dumps(config).encode()),
            "layers": [_blob(tar, "layer.v1.tar", each) for each in layers],
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
