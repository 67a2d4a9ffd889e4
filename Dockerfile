# The prober: dnsprobe with all it may use, run by anybody on a root that nobody writes to. Build it from this folder with
# docker, podman or buildah; it needs nothing else but the registries of images and of Python packages.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --tag registry.example.com/dnsprobe:0.1.0 --push .
#   docker run --rm --read-only --volume "$PWD:/data" dnsprobe run -s 192.0.2.53 -Q 50 -l 10
#
# The Python with which requirements.txt is pinned and tested.
ARG BASE=docker.io/library/python:3.11-slim

FROM ${BASE} AS build
RUN python3 -m venv /usr/local/dnsprobe
WORKDIR /src
COPY requirements.txt ./
RUN /usr/local/dnsprobe/bin/python -m pip install --no-cache-dir --require-hashes --requirement requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY probe probe
COPY scenarios scenarios
COPY deploy deploy
RUN /usr/local/dnsprobe/bin/python -m pip install --no-deps --no-build-isolation . \
    && /usr/local/dnsprobe/bin/python -m pip uninstall --yes pip setuptools

FROM ${BASE}
COPY --from=build /usr/local/dnsprobe /usr/local/dnsprobe
ENV PATH=/usr/local/dnsprobe/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# A number, for Kubernetes to see that it is not root; any other does as well.
USER 65532:65532
# Run files go here: mount something that may be written.
WORKDIR /data
ENTRYPOINT ["dnsprobe"]
