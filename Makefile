# Each target sets up what it needs. Python >= 3.11 and make are enough for all but `servers` (root), `coredns` (Go) and `e2e` (both).

PYTHON ?= python3
BIN = .venv/bin
PIP = $(BIN)/python -m pip --quiet --disable-pip-version-check
NEWEST_COREDNS = 1.15.0
OLDER_RELEASES = 1.6.9 1.7.0 1.8.0
COREDNS_VERSION = $(NEWEST_COREDNS)
DNSPYRE_VERSION = 3.12.0
PROMETHEUS = http://127.0.0.1:9090
OUT = preview.html
PYTHONS = $(PYTHON)
CACHE = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/dnsprobe/bin

KUBERNETES_VERSION = $(shell awk '$$1 == "k8s.io/kubernetes" { print substr($$2, 2) }' tests/e2e/parts/go.mod)
KUBERNETES = $(CACHE)/kubernetes-$(KUBERNETES_VERSION)

.PHONY: help install demo test coverage e2e alerts confusion releases drills loads fuzz lint bench package picture grafana preview captures dnspyre coredns servers lock clean

help: ## Say what there is
	@sed -n 's/^\([a-z0-9]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

install: .venv/run ## The command, in .venv/bin/dnsprobe
	@echo "installed: $(BIN)/dnsprobe"

demo: .venv/run ## Scale cluster DNS down in the lab, twice, and see what a setting saves
	@$(BIN)/python -m probe.cli demo

test: .venv/dev ## All tests; what is missing is skipped, with the command that lifts the skip (ARGS='-k name' to choose)
	@$(BIN)/python -m pytest $(ARGS)

# Processes that tests kill leave files that cannot be combined.
coverage: .venv/dev ## All tests, and which lines and branches of probe/ they never reach: twice as long (ARGS as for test)
	@rm -f .coverage .coverage.*
	@$(BIN)/python -m coverage run -m pytest $(ARGS); tests=$$?; \
		$(BIN)/python -m coverage combine -q 2>/dev/null; $(BIN)/python -m coverage report && exit $$tests

e2e: .venv/dev $(if $(KUBECONFIG),,$(KUBERNETES)) ## Tests in a real Kubernetes, built and started here (root); KUBECONFIG=... takes yours
	@DNSPROBE_E2E_PARTS=$(KUBERNETES) $(BIN)/python -m pytest tests/e2e $(ARGS)

lint: .venv/dev ## ruff, mypy, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

alerts: .venv/dev ## The shipped rules on a real Prometheus beside seven labs, at a scrape of 30 s: 8 minutes (root)
	@$(BIN)/python -m pytest -s -o faulthandler_timeout=0 tests/alerts_at_30s.py $(ARGS)

bench: .venv/dev ## How fast and how exact, beside other tools: 40 minutes (ARGS='cpu pacing --rounds 2' for some of it)
	@$(BIN)/python -m bench $(ARGS)

package: .venv/run ## Build sdist and wheel into dist/, install each anew and try it (PYTHONS='python3.11 python3.13')
	rm -rf dist
	$(BIN)/python -m hatchling build
	@set -e; for python in $(PYTHONS); do for each in dist/*; do .ci/installed $$python $$each; done; done

picture: .venv/dev ## Draw docs/run.svg anew: a real run in the lab, in which a pod goes without a lameduck
	@at=$$(mktemp -d) && trap 'rm -rf "$$at"' EXIT && { \
		$(BIN)/dnsprobe run scale-down --lab --set lab.lameduck=0s --set duration=12s -o "$$at/run.db" >/dev/null; \
		$(BIN)/dnsprobe report "$$at/run.db" --svg docs/run.svg | head -n 1; }

grafana: .venv/dev ## Write dashboards, alerts and what sets them up, under grafana/, from their Python source
	@$(BIN)/python -m grafana $(ARGS)

preview: .venv/dev ## Draw the dashboards from what a Prometheus has, without Grafana (PROMETHEUS=URL OUT=FILE ARGS='--seconds 600')
	@$(BIN)/python -m grafana.preview $(PROMETHEUS) $(OUT) $(ARGS)

captures: .venv/dev ## What glibc, musl and Go put on the wire beside their profiles, in each fault, on a quiet machine (root)
	@$(BIN)/python -m pytest tests/resolvers_captured.py $(ARGS)

releases: .venv/dev ## The audit's tables against older releases of CoreDNS, which it builds first: ten minutes each
	@for version in $(OLDER_RELEASES); do $(MAKE) --no-print-directory coredns COREDNS_VERSION=$$version; done
	@$(BIN)/python -m pytest -m releases tests/test_migration.py tests/test_corefile.py $(ARGS)

drills: .venv/dev ## Runs that are killed, starved and cut off, and what is left of each, as a table: 6 minutes (root; ARGS='NAME')
	@$(BIN)/python -m tests.drills $(ARGS)

loads: .venv/dev ## What a real CoreDNS counts of each way to ask it, as a table: 3 minutes (root; ARGS='NAME')
	@$(BIN)/python -m tests.loads $(ARGS)

fuzz: .venv/fuzz ## Octets nobody meant on all that reads them, guided by coverage: a minute each (ARGS='wire corefile --seconds 300')
	@$(BIN)/python -m tests.fuzz $(ARGS)

confusion: .venv/dev ## Labs with a hidden cause: how often `explain` names it first (root; 50 minutes, ARGS='-n 1' for 10)
	@$(BIN)/python -m tests.confusion $(or $(ARGS),-n 5 -j 2)

dnspyre: $(CACHE)/dnspyre-$(DNSPYRE_VERSION) ## Build dnspyre with Go into the user's cache, for the bench
	@ln -sf dnspyre-$(DNSPYRE_VERSION) $(CACHE)/dnspyre

coredns: $(CACHE)/coredns-$(COREDNS_VERSION) ## Build the real CoreDNS with Go into the user's cache, for tests and the lab (COREDNS_VERSION=1.9.3: an old one beside it)
	@[ $(COREDNS_VERSION) != $(NEWEST_COREDNS) ] || ln -sf coredns-$(COREDNS_VERSION) $(CACHE)/coredns
	@$< -version

servers: ## Install what tests use from Debian (root)
	@command -v apt-get >/dev/null || { echo "make servers needs apt-get; install knot, nsd and dnsperf your own way"; exit 1; }
	@[ "$$(id -u)" = 0 ] || { echo "make servers needs root: say sudo make servers"; exit 1; }
	apt-get update
	DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
		knot nsd dnsperf tcpdump nftables iproute2 conntrack buildah prometheus gcc libc6-dev musl-tools prometheus-alertmanager \
		zsh fish

lock: .venv/bin/python ## Pin again what is tested: requirements.txt and requirements-dev.txt (with Python 3.11)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
		|| { echo "lock needs a .venv of Python 3.11: make clean, then make lock PYTHON=python3.11"; exit 1; }
	$(BIN)/python -m venv .venv-lock
	.venv-lock/bin/python -m pip --quiet install --upgrade pip pip-tools
	CUSTOM_COMPILE_COMMAND="make lock" .venv-lock/bin/pip-compile $(LOCK) --build-deps-for editable \
		--output-file requirements.txt pyproject.toml
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"], sep="\n")' \
		| CUSTOM_COMPILE_COMMAND="make lock" .venv-lock/bin/pip-compile $(LOCK) --constraint requirements.txt \
		--output-file requirements-dev.txt -

clean: ## Remove what make made here
	rm -rf .venv .venv-lock .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* build dist

LOCK = --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "dnsprobe needs Python >= 3.11, and $(PYTHON) is $$($(PYTHON) --version 2>&1 | head -n 1): say make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/run: .venv/bin/python requirements.txt pyproject.toml
	@echo "installing what dnsprobe needs: a minute or more, silently"
	$(PIP) install --require-hashes --requirement requirements.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/dev: .venv/run requirements-dev.txt
	$(PIP) install --require-hashes --requirement requirements-dev.txt
	@touch $@

.venv/fuzz: .venv/dev tests/fuzz/requirements.txt
	$(PIP) install --require-hashes --only-binary :all: --requirement tests/fuzz/requirements.txt
	@touch $@

# Go >= 1.23 does not link golang.org/x/net as CoreDNS 1.9.3 has it (invalid reference to syscall.recvmsg).
OLD_COREDNS = $(if $(filter-out $(NEWEST_COREDNS),$(COREDNS_VERSION)),GOFLAGS=-ldflags=-checklinkname=0)

$(CACHE)/coredns-$(COREDNS_VERSION):
	@command -v go >/dev/null || { echo "make coredns needs Go >= 1.25 on PATH: https://go.dev/dl"; exit 1; }
	GOBIN=$@.new $(OLD_COREDNS) go install github.com/coredns/coredns@v$(COREDNS_VERSION)
	@mv $@.new/coredns $@ && rmdir $@.new

$(CACHE)/dnspyre-$(DNSPYRE_VERSION):
	@command -v go >/dev/null || { echo "make dnspyre needs Go >= 1.25 on PATH: https://go.dev/dl"; exit 1; }
	GOBIN=$(CACHE)/new go install github.com/tantalor93/dnspyre/v3@v$(DNSPYRE_VERSION)
	@mv $(CACHE)/new/dnspyre $@ && rmdir $(CACHE)/new

# Static, since they are images too. Packages are unpacked, not installed: no service of theirs starts on this machine.
$(KUBERNETES):
	@command -v go >/dev/null || { echo "make e2e needs Go >= 1.24 on PATH: https://go.dev/dl"; exit 1; }
	@command -v apt-get >/dev/null || { echo "make e2e needs Debian's packages; else say make e2e KUBECONFIG=..."; exit 1; }
	@rm -rf $@.new && mkdir -p $@.new
	cd tests/e2e/parts && CGO_ENABLED=0 GOBIN=$@.new go install \
		-ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v$(KUBERNETES_VERSION)" tool ./pause
	CGO_ENABLED=0 GOBIN=$@.new go install github.com/coredns/coredns@v$(NEWEST_COREDNS)
	cd $@.new && apt-get download etcd-server containerd runc containernetworking-plugins iptables \
		&& for each in *.deb; do dpkg-deb -x $$each debian && rm $$each; done
	for each in iptables ip6tables; do for end in "" -save -restore; do \
		ln -s debian/usr/sbin/xtables-nft-multi $@.new/$$each$$end; done; done
	@mv $@.new $@
