# make setup   the Debian packages of contrib/debian-packages.txt and .venv with mixer and swupd
# make demo    builds, serves, installs, updates and repairs the shipped mix (root; under 10 minutes)
# make demo-nextboot   a virtual machine that updates itself for its next boot, and falls back (root; under 10 minutes)
# make test    linters, types and every test
# make nightly every test, with all points of the proof (root; hours)
# make manual  the man pages and completions of contrib/, from the parsers
# make bench   measurements on real data (root; about 10 minutes; DATA=DIR keeps the data there instead of in .bench)

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/ready

.PHONY: setup demo demo-nextboot test nightly manual bench clean

setup: $(READY)

$(READY): pyproject.toml contrib/debian-packages.txt contrib/setup
	contrib/setup $(PYTHON) $(VENV)
	touch $@

demo: setup
	$(VENV)/bin/python contrib/demo.py demo

demo-nextboot: setup
	$(VENV)/bin/python contrib/demo_nextboot.py demo/nextboot

# Virtual machines wait more than they work, so they run beside all the rest.
test: setup
	$(VENV)/bin/python -m pytest -m "machine and not nightly" >$(VENV)/machines.log 2>&1 & machines=$$!; \
	$(VENV)/bin/python -m pytest -m "not machine and not nightly"; rest=$$?; \
	wait $$machines; machines=$$?; cat $(VENV)/machines.log; exit $$((rest | machines))

manual: setup
	$(VENV)/bin/python -m swupd.manual contrib

nightly: setup
	SWUPD_PROOF_SEED=$$(date +%s) $(VENV)/bin/python -m pytest -m "nightly or not nightly"

bench: setup
	$(VENV)/bin/python -m tests.bench $(if $(DATA),--data $(DATA))

clean:
	rm -rf $(VENV) .bench demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
