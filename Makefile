# make demo | make test are all one needs; each sets up what is missing.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
SHELL := /bin/bash

BENCHES := bench-learning bench-tracker bench-gap bench-gate bench-planning bench-fleet bench-hands \
	bench-ablation bench-training_speed bench-eyes bench-motion bench-calibration bench-lqr \
	bench-grasping bench-web bench-resets bench-unattended bench-rl bench-policy bench-offline bench-assist \
	bench-lerobot_loader

.PHONY: setup peers demo test faults fuzz lint results clean $(BENCHES)

setup:
	@test -n "$(PYTHON)" || { echo "set-up: Python 3.11 was not found; install it and call make again" >&2; exit 1; }
	@"$(PYTHON)" scripts/bootstrap.py

# What tests of drivers talk to, beside .venv: simulated controllers.
peers: setup
	@"$(PYTHON)" scripts/peers.py

demo: setup
	@.venv/bin/twinloop demo $(ARGS)

test: setup peers lint
	@.venv/bin/python scripts/run_tests.py $(ARGS)

# Every row of the fault matrix, and its table; FULL=1 repeats more often and keeps the result.
faults: setup peers
	@.venv/bin/python benchmarks/faults.py $(if $(filter-out 0,$(FULL)),--full) $(ARGS)

# Bad input to everything that reads: ten times what the tests try, others each time.
fuzz: setup
	@FUZZ=1 .venv/bin/python -m pytest tests/fuzz --timeout=3600 $(ARGS)

lint: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

# Quick by default; FULL=1 runs the whole protocol and keeps its result.
$(BENCHES): bench-%: setup
	@.venv/bin/python benchmarks/$*.py $(if $(filter-out 0,$(FULL)),--full) $(ARGS)

results: setup
	@.venv/bin/python benchmarks/results.py

clean:
	rm -rf .venv build install log
