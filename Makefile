# catwalk. `make` alone prints the verbs.

SHELL := /bin/sh
ARGS ?=

.PHONY: help run lab papers deb rpm system browser test lint build api-fuzz soak torture coherence cluster bench compare bench-cluster bench-scaling bench-cache bench-load bench-sizes clean

help:
	@echo 'make run     a catalogue on http://127.0.0.1:8080: installs PostgreSQL if it is missing, builds, serves'
	@echo '             ARGS="--listen 127.0.0.1:9000 --products 500" are passed on to catwalk dev'
	@echo 'make test    every test, on clusters of its own'
	@echo 'make lint    formatting, clippy with warnings denied, dependency rules'
	@echo 'make build   the release binary, target/release/catwalk'
	@echo 'make lab     what catwalk top and catwalk bench run, target/release/catwalk-lab'
	@echo 'make deb, rpm  a package for Debian and Ubuntu, for Amazon Linux and Fedora, in target/packages'
	@echo 'make system  200 reloads, 50 upgrades, 50 kills and 20 stops under load; then the package in a booted Debian with a systemd of its own'
	@echo 'make api-fuzz  an hour of what the API description allows, and of what it does not'
	@echo 'make browser  a visit to the storefront in a real browser: desktop, phone, in the dark, by keyboard; screenshots in target/browser/shots'
	@echo 'make soak    the tests that kill, for 30 seconds each'
	@echo 'make torture the shared cache: a death at each of its stores, 100,000 kills of its processes and 10^9 verified reads; an hour at most, and'
	@echo '             stopped it goes on from there; TORTURE_KILLS=… TORTURE_READS=… for others'
	@echo 'make coherence  a million reads under every fault of the database and the change feed, and each of its rules'
	@echo 'make cluster a million reads of two boxes behind a balancer, with a primary and two replicas, under every fault of nodes and cables'
	@echo 'make bench   last page against first page of a million products; from COMMIT to visible; what the feed costs writers; writes a second'
	@echo 'make compare  nginx proxy_cache, Varnish, a Node cluster with Redis and without, beside us: CPU a request and the highest rate'
	@echo 'make bench-cache  the shared cache: lookups on one core and two beside memcpy, hit ratios beside LRU, a restart with 1 GiB'
	@echo 'make bench-cluster  cold reads with two replicas and with none: CPU a request of each node'
	@echo 'make bench-scaling  hit ratio, database load and staleness against boxes and catalogue size, simulated'
	@echo 'make bench-load  a million products loaded, and by psql; LOAD_PRODUCTS=100000 for fewer'
	@echo 'make bench-sizes  answers from 100,000 products and from 10,000,000 (20 minutes and 20 GB); SIZES=…,… PROFILE=full for others'
	@echo 'make clean   what was built, and the private cluster'

run: build
	@exec target/release/catwalk dev $(ARGS)

build: prepare
	cargo build --release --locked --bin catwalk

lab:
	cargo build --release --locked -p catwalk-lab

papers:
	cargo run --quiet --locked -p papers -- target/papers

deb: build lab papers
	@.ci/packagers cargo-deb
	PATH="$$PWD/target/packagers/bin:$$PATH" cargo deb --no-build --locked --output target/packages/
	@ls target/packages/*.deb

rpm: build lab papers
	@.ci/packagers cargo-generate-rpm
	PATH="$$PWD/target/packagers/bin:$$PATH" cargo generate-rpm --output target/packages/
	@# The same as the next release, which is what an upgrade is tried with.
	@mkdir -p target/packages/next
	PATH="$$PWD/target/packagers/bin:$$PATH" cargo generate-rpm --set-metadata 'release = "2"' --output target/packages/next/
	@ls target/packages/*.rpm

system: prepare deb rpm
	@.ci/instruments
	STORM=whole cargo test --locked --release --test it m_service -- --nocapture --test-threads 1
	cargo test --locked --release --test system -- --nocapture --test-threads 1

test: prepare
	@.ci/instruments
	cargo test --workspace --locked

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	@if cargo deny --version >/dev/null 2>&1; then cargo deny --workspace --locked check bans licenses sources; \
	else echo 'cargo-deny is not installed: dependency rules not checked'; fi

api-fuzz: prepare
	@.ci/instruments
	API_FUZZ_SECONDS=3600 cargo test --locked --release --test it h_described -- --nocapture

browser: prepare
	@.ci/instruments
	rm -rf target/browser/shots
	VISIT=whole cargo test --locked --test it n_browser -- --nocapture
	@ls target/browser/shots

soak: prepare
	SOAK_SECONDS=30 cargo test --locked --release --test it -- --nocapture killed

torture:
	CRASH_STEP=1 cargo test --locked --release --lib cache::tests::crash -- --nocapture
	TORTURE_KILLS=$${TORTURE_KILLS:-100000} cargo test --locked --release --test it c_cache -- --nocapture

coherence: prepare
	@.ci/instruments
	COHERENCE_READS=1000000 cargo test --locked --release --test it d_coherence -- --nocapture --test-threads 1

cluster: prepare
	@.ci/instruments
	CLUSTER_READS=1000000 cargo test --locked --release --test it d_cluster -- --nocapture --test-threads 1

bench: prepare
	cargo bench --locked --bench pages --bench visible --bench writers --bench votes

compare: build lab
	bench/compare/run $(ARGS)

bench-cache: prepare
	cargo bench --locked --bench lookup
	cargo bench --locked --bench hit_ratio
	cargo bench --locked --bench restart

bench-cluster: prepare
	CLUSTER_ROUNDS=7 cargo test --locked --release --test it cold_reads -- --nocapture

bench-scaling:
	cargo bench --locked --bench scaling

bench-load: prepare
	cargo bench --locked --bench load

bench-sizes: prepare
	cargo bench --locked --bench sizes

.PHONY: prepare
prepare:
	@.ci/prepare

clean:
	cargo clean
	rm -rf .catwalk
