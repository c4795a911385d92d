# The front door. `make help` lists the targets.

BUILD ?= build
SEEDS ?= 2000
SEED ?= 1
MINUTES ?= 10
PREFIX ?= /usr/local

all: build

help: ## what can be made
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

deps: ## installs the Debian packages that are missing
	@scripts/install-deps

build: deps ## builds the daemon, the command line and the plugins
	@test -f $(BUILD)/build.ninja || meson setup $(BUILD) >$(BUILD).log 2>&1 || \
		{ cat $(BUILD).log; exit 1; }
	@rm -f $(BUILD).log
	@ninja -C $(BUILD)

lab: build ## starts three regions on this machine and tells how to use them
	@$(BUILD)/meridian lab up

lab-down: ## stops them
	@$(BUILD)/meridian lab down

test: build ## runs every test; ends with `N passed, N failed`
	@scripts/test --build $(BUILD)

sim: build ## runs the simulator: SEEDS=n, SEED=first
	@$(BUILD)/src/sim/meridian-sim run --seeds $(SEEDS) --seed $(SEED)

sim-bugs: build ## plants every known bug and checks that the simulator finds it
	@$(BUILD)/src/sim/meridian-sim bugs

soak: build ## uses three regions while everything fails: MINUTES=n, SEED=n
	@MERIDIAN_BUILD=$(abspath $(BUILD)) /usr/bin/python3 -u tests/soak/run.py --seconds $$(( $(MINUTES) * 60 )) --seed $(SEED)

bench: build ## measures, each figure beside its rival's: BENCH='keyspace redis dns edge locks replication failover postgres'
	@bench/run $(BENCH)

check: build ## format, house rules, static analysis
	@scripts/check --build $(BUILD)

install: build ## installs under PREFIX (and DESTDIR)
	@meson configure $(BUILD) --prefix=$(PREFIX) >/dev/null
	@meson install -C $(BUILD) --no-rebuild
	@test -n "$(DESTDIR)" || ldconfig

clean: ## removes what was built; a running lab must be down
	@if [ -d .lab ] && $(BUILD)/meridian lab status >/dev/null 2>&1; then \
		echo "make clean: the lab is running; stop it first: make lab-down" >&2; exit 1; fi
	@rm -rf $(BUILD) .lab

.PHONY: all help deps build lab lab-down test sim sim-bugs soak bench check install clean
