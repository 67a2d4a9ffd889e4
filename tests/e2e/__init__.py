"""A real Kubernetes, and what dnsprobe does in it: `make e2e` (root, Go, Debian), or `make e2e KUBECONFIG=...`.

Real: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy, containerd, runc, the CNI
plugins and CoreDNS, all as released. Made here: the certificates, and the images, since no registry is asked.
Not real: both nodes are namespaces of one machine, on a bridge that leads nowhere else; they share its clock, kernel
and disk; kube-proxy is a process on them, not a DaemonSet; what CoreDNS forwards to answers every name.
"""
