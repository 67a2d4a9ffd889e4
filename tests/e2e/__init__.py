"""A real Kubernetes, and what dnsprobe does in it: `make e2e` (root, Go, Debian), or `make e2e KUBECONFIG=...`.

Real: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy, containerd, runc, the CNI
plugins and CoreDNS, all as released. Made here: the certificates, and the images, since no registry is asked.
Not real: there is one node, whose network ends at its own namespace; kube-proxy is a process, not a DaemonSet.
"""
