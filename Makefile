# make demo   one host, an app on it, its answer and its URL
# make test   lint, unit tests and the scenarios
# make test-all  that, and half an hour of deploys that are cut off anywhere
# make bench  what things cost, as ratios, JSON and plots
# make clean  takes away all that these made
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

# The first Python that the tools run on.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
TESTHOSTS := tests/hosts/testhosts
STAMP := .venv/.installed

.PHONY: help demo test test-all bench lint unit setup clean
help:
	@sed -n '1,5s/^# //p' Makefile

demo: setup
	@.venv/bin/python tests/demo

test: setup
	@.venv/bin/python tests/run

test-all: setup
	@.venv/bin/python tests/run all

bench: setup
	@.venv/bin/python tests/bench

lint unit: setup
	@.venv/bin/python tests/run $@

molecule-%: setup
	@.venv/bin/python tests/run $*

setup: $(STAMP)

$(STAMP): requirements-dev.txt
	@if [ -z "$(PYTHON)" ]; then echo "make: Python 3.11 or newer is missing; install it, or say where it is: make PYTHON=..." >&2; exit 1; fi
	$(PYTHON) $(TESTHOSTS) setup
	echo "setup: installing the tools into .venv"
	rm -rf .venv
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	touch $(STAMP)

clean:
	@$(TESTHOSTS) clean
	rm -rf .venv .cache
