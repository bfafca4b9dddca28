# `make demo` and `make test` do all the set-up; `make help` lists the other commands.
# Works with GNU make 3.81 (macOS) and later. README has the same in plain `python -m …` lines.

PYTHON ?= python3
VENV := .venv
IN := $(VENV)/bin/python

# One stamp for the packages of `make demo`, one for those of `make test`, which include the first. So the later command
# installs only the rest, and pip does not run at all if nothing has changed.
CREATED := $(VENV)/.created
FOR_DEMO := $(VENV)/.installed-demo
FOR_DEV := $(VENV)/.installed-dev
SPECIFICATION := pyproject.toml constraints.txt
# Without an NVIDIA driver, PyTorch's CPU build: on Linux, PyPI's own brings gigabytes of CUDA. `make TORCH_INDEX=` takes it.
GPU := $(wildcard /proc/driver/nvidia/version /dev/nvidia0 /dev/dxg /etc/nv_tegra_release)
ifeq ($(shell uname -s)$(GPU),Linux)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
endif
PYTEST := $(IN) -m pytest --numprocesses auto --dist loadscope
# Python compiles modules when it first imports them; compiling all of them takes a minute, and most are never imported.
INSTALL := $(IN) -m pip install --disable-pip-version-check --no-compile --constraint constraints.txt
# Alone, so that nothing else comes from there; where it cannot be reached, the later command finds another build.
INSTALL_TORCH = $(if $(TORCH_INDEX),$(INSTALL) --no-deps --retries 1 --extra-index-url $(TORCH_INDEX) torch)

.DEFAULT_GOAL := help
.PHONY: help demo run check setup-bot invite test setup format format-check lint types ci lock translations site pictures clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

demo: $(FOR_DEMO) ## the bot in a local page, without Discord and without a token (MODEL=name or folder, PORT=n)
	@$(IN) -m bot demo $(if $(MODEL),--model "$(MODEL)") $(if $(PORT),--port $(PORT))

run: $(FOR_DEMO) ## the bot on Discord; needs DISCORD_TOKEN in .env
	@$(IN) -m bot run

check: $(FOR_DEMO) ## find faults in settings, token and model (MODEL=name or folder)
	@$(IN) -m bot check $(if $(MODEL),--model "$(MODEL)")

setup-bot: $(FOR_DEMO) ## ask for the token and the model, write .env, check it, print the invitation
	@$(IN) -m bot setup

invite: $(FOR_DEMO) ## print the link that adds the bot to a server
	@$(IN) -m bot invite

test: $(FOR_DEV) ## the tests without the slow ones (SLOW=1: all; ARGS="-k lock": a few)
	@$(PYTEST) $(if $(SLOW),,-m "not slow") $(ARGS)

setup: $(FOR_DEV) ## install everything and do nothing else

format: $(FOR_DEV) ## format the code
	@$(IN) -m ruff format
	@$(IN) -m ruff check --fix

format-check: $(FOR_DEV) ## check the format
	@$(IN) -m ruff format --check

lint: $(FOR_DEV) ## ruff's rules
	@$(IN) -m ruff check

types: $(FOR_DEV) ## mypy, strict
	@$(IN) -m mypy --num-workers 2

ci: ## all checks that a change must pass
	@.ci/run

lock: $(FOR_DEV) ## write the versions in .venv into constraints.txt
	@$(IN) -m tools.lock

translations: $(FOR_DEV) ## bring bot/locale/*.po up to date with the code (ARGS=--check only looks)
	@$(IN) -m tools.translations $(ARGS)

site: $(FOR_DEV) ## build the documentation as a site into site/; fails on broken links
	@$(IN) -m mkdocs build --strict

pictures: $(FOR_DEV) ## make docs/pictures from the real bot; needs Chromium (GPT2=folder: weights of that model)
	@$(IN) -m tools.pictures $(if $(GPT2),--gpt2 "$(GPT2)")

clean: ## remove .venv and what the tools left behind
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(CREATED):
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is %d.%d: make PYTHON=python3.12 …" \
	    % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@$(IN) -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(FOR_DEMO): $(CREATED) $(SPECIFICATION)
	$(INSTALL_TORCH)
	$(INSTALL) --editable '.[demo]'
	@touch $@

$(FOR_DEV): $(CREATED) $(SPECIFICATION)
	$(INSTALL_TORCH)
	$(INSTALL) --editable '.[dev]'
	@touch $(FOR_DEMO) $@
