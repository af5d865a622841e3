# Every target does its own set-up; `make install` leaves .venv with all that development needs.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install demo test matrix lint format docs course bench build clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: install
	$(BIN)/python -m benchmarks.demo

test: install
	$(BIN)/python -m pytest --numprocesses=2 --dist=worksteal

# Where pyenv is in use, all of its Pythons count as installed. WORDS go to tox, as in make matrix WORDS="-e py312-lowest"
matrix: install
	PYENV_VERSION="$${PYENV_VERSION-$$(pyenv versions --bare 2>/dev/null | sort -rV | paste -s -d:)}" $(BIN)/tox run $(WORDS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --jobs auto --doctree-dir build/doctrees docs site

course: install
	$(BIN)/python -m docs.slides --out course

bench: install
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.throughput_stages
	$(BIN)/python -m benchmarks.agent_step

build: install
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf .venv .tox dist build runs site course docs/course docs/environments docs/generated .mypy_cache .pytest_cache .ruff_cache
