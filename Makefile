# make demo    train on one machine with a server and two devices, and show the table
# make test    the whole test suite
# make fast    the tests of a minute: all but those that train, export large networks or start many processes
# make check   ruff (rules and formatting) and mypy (types); changes no file
# make format  apply the fixes and the formatting of ruff
# make native  compile the kernels of entropy coding again, for all machines
# make flower  .venv-flower with Flower, for `edgekit federate`: it wants other versions of packages than the rest
# make venv    the set-up alone: .venv with the versions of constraints.txt
PYTHON ?= python3
MODEL ?= mobilenet_v1
# One more than processors: tests of real processes wait a good part of their time.
WORKERS ?= $$(($$(nproc) + 1))

.PHONY: demo test fast check format native flower venv
.DEFAULT_GOAL := demo

demo: venv
	.venv/bin/edgekit train $(MODEL) --dataset digits --devices 2 --codec sgq --bits 4 --groups 8 --epochs 10 --out runs/demo

test: venv
	.venv/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

fast: venv
	.venv/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder -m 'not slow'

check: venv
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

format: venv
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

native: venv
	.venv/bin/python -m edgekit.codecs.entropy.native.build

flower: .venv-flower/installed

.venv-flower/installed: pyproject.toml constraints-flower.txt
	@command -v $(PYTHON) >/dev/null || { echo "no '$(PYTHON)' here: install Python >= 3.11, or make flower PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("$(PYTHON) is Python " + sys.version.split()[0] + ", Flower needs >= 3.11: make flower PYTHON=python3.11, or another that is there")'
	$(PYTHON) -m venv .venv-flower
	.venv-flower/bin/python -m pip install --constraint constraints-flower.txt --editable '.[flower]' pytest pytest-timeout
	touch $@

venv: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "no '$(PYTHON)' here: install Python >= 3.10, or make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("$(PYTHON) is Python " + sys.version.split()[0] + ", edgekit needs >= 3.10: make PYTHON=python3.11, or another that is there")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --constraint constraints.txt --editable '.[all,dev]'
	touch $@
