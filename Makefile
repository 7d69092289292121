# make demo   compress the built-in demo model for three runtimes and show what it cost
# make test   the test suite (slow and device tests are left out)
# Each does all the set-up it needs on a machine with Python 3.11, once.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SETUP  := pyproject.toml constraints.txt

.PHONY: demo test test-slow lint clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo-ready
	$(BIN)/edgeav compress recipes/int8.yaml

test: $(VENV)/.test-ready
	$(BIN)/python -m pytest -n 2

# What takes longer than the default suite may: every model on every runtime, the C++ runner, a run killed in each step.
test-slow: $(VENV)/.test-ready
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m 'slow and not device'

lint: $(VENV)/.test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# The environment and the runs. Sources and committed weights stay.
clean:
	rm -rf $(VENV) runs build dist .pytest_cache .ruff_cache

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "edgeav needs Python 3.11 or newer; say which one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	touch $@

# About two minutes and 7 GB: PyPI's torch for Linux brings CUDA along; nothing here needs a GPU.
# The stamps are newer than what they were made from; an interrupted install leaves no stamp and is done again.
$(VENV)/.demo-ready: $(SETUP) | $(VENV)/.created
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[all]'
	touch $@

$(VENV)/.test-ready: $(SETUP) | $(VENV)/.created
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	touch $@ $(VENV)/.demo-ready
