"""Names -> a certificate authority's keys and certificates, and the kubeconfigs that carry them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

ADMIN = "admin"
CLIENTS = {
    ADMIN: "/O=system:masters/CN=admin",
    "kube-controller-manager": "/CN=system:kube-controller-manager",
    "kube-scheduler": "/CN=system:kube-scheduler",
    "kube-proxy": "/CN=system:kube-proxy",
    "kube-apiserver-kubelet": "/O=system:masters/CN=kube-apiserver-kubelet",
}
"""Who asks the API server (the last: whom it is when it asks the kubelet), as its RBAC knows them."""
CLUSTER = "dnsprobe-e2e"


def _certify(folder: Path, name: str, subject: str, *extensions: str) -> None:
    authority = [] if name == "ca" else ["-CA", "ca.crt", "-CAkey", "ca.key"]
    added = [word for extension in extensions for word in ("-addext", extension)]
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-config", "openssl.cnf", "-days", "30", "-subj", subject),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"),
            *("-keyout", f"{name}.key", "-out", f"{name}.crt", *authority, *added),
        ],
        check=True,
        capture_output=True,
        cwd=folder,
    )


def make(folder: Path, addresses: tuple[str, ...], port: int, nodes: Iterable[str]) -> None:
    """Write ca, apiserver, service-account and each client as .key and .crt, and a .kubeconfig for each client.

    The first two addresses are the API server's on loopback, for the admin, and between nodes, for all others.
    """
    folder.mkdir()
    (folder / "openssl.cnf").write_text("[req]\ndistinguished_name=none\n[none]\n")
    _certify(folder, "ca", "/CN=dnsprobe-e2e", "basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign")
    names = ",".join(("DNS:kubernetes.default.svc", *(f"IP:{address}" for address in addresses)))
    usage = ("basicConstraints=CA:FALSE", "keyUsage=digitalSignature", "extendedKeyUsage=")
    _certify(folder, "apiserver", "/CN=apiserver", *usage[:2], f"{usage[2]}serverAuth", f"subjectAltName={names}")
    _certify(folder, "service-account", "/CN=service-account")
    for name, subject in {**CLIENTS, **{node: f"/O=system:nodes/CN=system:node:{node}" for node in nodes}}.items():
        _certify(folder, name, subject, *usage[:2], f"{usage[2]}clientAuth")
        _kubeconfig(folder, name, f"https://{addresses[name != ADMIN]}:{port}")


def _kubeconfig(folder: Path, name: str, server: str) -> None:
    """JSON is YAML."""
    cluster = {"server": server, "certificate-authority": str(folder / "ca.crt")}
    user = {"client-certificate": str(folder / f"{name}.crt"), "client-key": str(folder / f"{name}.key")}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CLUSTER, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": CLUSTER, "context": {"cluster": CLUSTER, "user": name}}],
        "current-context": CLUSTER,
    }
    (folder / f"{name}.kubeconfig").write_text(json.dumps(config, indent=2))
