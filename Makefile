# The commands a person types. `make help` lists them.
PYTHON ?= $(if $(filter Windows_NT,$(OS)),python,python3)
BIN := $(if $(filter Windows_NT,$(OS)),.venv/Scripts,.venv/bin)
NOTEBOOKS = $(patsubst nbs/%.ipynb,%,$(sort $(wildcard nbs/*.ipynb)))

.DEFAULT_GOAL := help
.PHONY: help lab test test-browser weekly audit train bench docs docs-serve export run clean

help: ## list these commands
	@echo "Foundations of Deep Learning: make COMMAND, one of"
	@sed -n 's/^\([a-z-]*\):.*## /  \1	/p' $(firstword $(MAKEFILE_LIST))

lab: ## set everything up and open JupyterLab at the first lesson
	@$(call setup,lab)
	@$(BIN)/python scripts/lab.py $(LAB_FLAGS)

test: ## set everything up and run every check
	@$(call setup,lab test)
	@$(BIN)/python -m pytest $(PYTEST_FLAGS)

test-browser: ## build the web book, and try it page by page in Chromium, and a lesson in JupyterLab (about ten minutes)
	@$(call setup,docs browser lab test)
	@$(BIN)/python scripts/book.py
	@$(BIN)/python -m pytest tests/browser $(PYTEST_FLAGS)

weekly: ## set everything up and run what is too slow for each run: other arithmetics, other trainers
	@$(call setup,lab test bench)
	@$(BIN)/python -m pytest -m weekly $(PYTEST_FLAGS)

audit: ## break every exported definition on purpose and list what the lessons do not notice (slow)
	@$(call setup,lab test)
	@$(BIN)/python tests/tools/audit.py $(AUDIT_FLAGS)

train: ## train the course's fast network to 99% on MNIST and save pictures of the result in runs/
	@$(call setup,)
	@$(BIN)/python scripts/train.py $(TRAIN_FLAGS)

bench: ## time fdl beside its peers, and write the table and picture in benchmarks/results/ (about ten minutes)
	@$(call setup,bench test)
	@$(BIN)/python -m benchmarks.run $(BENCH_FLAGS)

docs: ## build the web book from the notebooks as they were last run, in _build/docs
	@$(call setup,docs)
	@$(BIN)/python scripts/book.py $(DOCS_FLAGS)

docs-serve: docs ## build the web book and show it at http://127.0.0.1:8123
	@$(BIN)/python -m http.server 8123 --bind 127.0.0.1 --directory _build/docs

export: ## after editing and saving a notebook: make fdl/ and README.md from nbs/, and clean the notebooks
	@$(call setup,lab test)
	@$(BIN)/python scripts/export.py

run: ## run all notebooks, or those that begin so: make run LESSON=05; stores what they show now
	@$(if $(wildcard nbs/$(LESSON)*.ipynb),,echo "No notebook begins with '$(LESSON)'; there are $(NOTEBOOKS)."; exit 1)
	@$(call setup,lab test)
	@$(BIN)/python scripts/run_notebooks.py nbs/$(LESSON)*.ipynb && $(BIN)/nbdev-clean && $(BIN)/python scripts/readme.py

clean: ## remove .venv and everything else that the commands above made
	rm -rf .venv _build build dist *.egg-info runs .pytest_cache .hypothesis nbs/.ipynb_checkpoints

# A machine without Python gets a sentence; so does an old one, a missing venv module or no network (scripts/setup_env.py).
define setup
	command -v $(PYTHON) >/dev/null || { echo "There is no '$(PYTHON)' here. Install Python 3.10 or newer, or name yours: make $@ PYTHON=/path/to/python"; exit 1; }; \
	$(PYTHON) scripts/setup_env.py $(1)
endef
