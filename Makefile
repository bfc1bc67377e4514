PYTHON ?= .venv/bin/python

.PHONY: pose-tools

# The built-in head-pose estimator: mediapipe in an environment of its own (630 MB), once, with the network; offline afterwards.
pose-tools:
	python3.11 -m venv .venv-pose
	.venv-pose/bin/pip install --quiet --no-deps -r requirements-pose.txt
	.venv-pose/bin/python -c "import mediapipe; print('mediapipe', mediapipe.__version__, 'is ready')"
