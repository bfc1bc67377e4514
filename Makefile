# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo web test check gpu-check pose-tools

# A portrait that speaks: results/demo.mp4
demo: $(READY)
	$(BIN)/python -m animation.demo

# The same on a page of this machine: http://127.0.0.1:8000
web: $(READY)
	$(BIN)/python -m animation.web

# Everything but the minutes-long and the GPU tests.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --maxfail 10 -m "not slow and not gpu"

# On a machine with a GPU: the tests marked gpu, then speeds; at most ten minutes, the report is in results/gpu_check.
gpu-check: $(READY)
	$(BIN)/python -m benchmarks.gpu_check

# Style and types.
check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(READY): requirements.txt requirements-faces.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "Python 3.11, 3.12 or 3.13 is needed; name one: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-faces.txt
	touch $@

# The built-in head-pose estimator: mediapipe in an environment of its own (630 MB), once, with the network; offline afterwards.
pose-tools:
	$(PYTHON) -m venv .venv-pose
	.venv-pose/bin/pip install --quiet --no-deps -r requirements-pose.txt
	.venv-pose/bin/python -c "import mediapipe; print('mediapipe', mediapipe.__version__, 'is ready')"
