"""The child process: a llama.cpp HTTP server that says where it listens and lives as long as its parent.

    python -m gateway.demo.llama_server '{"model": "…", …}'     (started by `engine.Engine`)

Its log goes to standard error. Its standard output is one line, the URL, once the model has been loaded.
"""

import json
import os
import sys
from typing import Any

import cattrs
import xllamacpp

from gateway.demo import child
from gateway.demo.engine import Serving


def main() -> None:
    """Serve until the parent is gone. Exit code 1 when llama.cpp refuses the model."""
    child.end_with_parent()
    announce = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever llama.cpp prints belongs into the log
    serving = cattrs.structure(json.loads(sys.argv[1]), Serving)
    try:
        server = xllamacpp.Server(_parameters(serving))
    except RuntimeError:  # the log has said why
        sys.exit(1)
    announce.write(f"{server.listening_address}\n")
    announce.close()
    child.wait_for_parent()
    os._exit(0)  # a tidy end would wait for running answers, and nobody is left to read them


def _parameters(serving: Serving) -> Any:
    """What llama.cpp wants to know; port 0 lets the system choose one that is free."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = serving.model
    parameters.model_alias = {serving.alias}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.cors_origins = "http://127.0.0.1"  # the default lets any web page of the user talk to it
    parameters.n_parallel = serving.slots
    parameters.n_ctx = serving.context
    parameters.kv_unified = True
    parameters.embedding = serving.embeddings
    parameters.endpoint_slots = True
    parameters.ui = False
    if serving.threads is not None:
        parameters.cpuparams.n_threads = serving.threads
        parameters.cpuparams_batch.n_threads = serving.threads
        parameters.warmup = False  # a model for one thread is loaded at once; there is nothing to warm up
        parameters.fit_params = False
    return parameters


if __name__ == "__main__":
    main()
