"""What `make bench` reads, adds up, judges and draws. Nothing is measured here."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import machine
from bench.chart import Bar, chart
from bench.figures import DOCUMENT, REFERENCE, inserted
from bench.measuring import ROWS, Results, body_of
from bench.profile import by_room
from bench.programs import Double, Model, NoCompiler, Told, program
from bench.tables import tables, verdicts
from bench.targets import EMBEDDED, GATEWAY, TARGETS, judged

_TOLD = (
    '{"seconds":2.0,"ok":3,"refused":1,"errors":0,"tokens":7,"bytes":9,"refusal":"HTTP/1.1 429",'
    '"answer_ms":{"count":4,"p50":0.2,"p90":0.4,"p99":0.5,"max":0.6},"first_token_ms":{"count":0},'
    '"token_ms":{"count":0},"jitter_ms":{"count":0}}'
)


def results_of(**cpu_us: float) -> Results:
    """Of a plain request with 16 callers, by system."""
    results = Results()
    for system, value in cpu_us.items():
        name = {"fleet": GATEWAY, "embedded": EMBEDDED}.get(system, system)
        results.add(name, "plain 16", {"cpu_us": value, "answer_p50_ms": value / 100})
    return results


def test_what_the_load_generator_prints_is_read():
    told = Told.read(_TOLD)

    assert (told.ok, told.refused, told.refusal) == (3, 1, "HTTP/1.1 429")
    assert (told.answer.p50, told.answer.p99) == (0.2, 0.5)
    assert told.first_token.p50 is None


def test_a_figure_is_the_median_of_its_rounds():
    results = Results()
    for value in (3.0, 1.0, 2.0):
        results.add("nginx", "plain 16", {"cpu_us": value})

    assert results.median("nginx", "plain 16", "cpu_us") == 2.0
    assert results.median("nginx", "plain 64", "cpu_us") is None


def test_what_is_added_is_counted_round_by_round():
    """A round in which all were slow says nothing of the system."""
    results = Results()
    for without, behind in ((1.0, 3.0), (100.0, 102.0), (1.0, 4.0)):
        results.add("direct", "plain 1", {"answer_p50_ms": without})
        results.add("nginx", "plain 1", {"answer_p50_ms": behind})

    assert results.added("nginx", "plain 1", "answer_p50_ms") == 2.0


@pytest.mark.parametrize(
    ("fleet", "nginx", "verdict"), [(180.0, 20.0, "holds"), (181.0, 20.0, "does not hold")]
)
def test_ratios_are_judged(fleet: float, nginx: float, verdict: str):
    by_text = {one.text: one for one in judged(results_of(fleet=fleet, nginx=nginx))}

    assert by_text["CPU of a plain request, of nginx'"].value == fleet / nginx
    assert by_text["CPU of a plain request, of nginx'"].verdict == verdict
    assert by_text["CPU of a plain request, of Portkey's"].verdict == "not measured"


def test_every_target_asks_for_a_row_that_is_measured():
    everything = Results()
    names = [GATEWAY, EMBEDDED, "nginx", "direct", "LiteLLM", "Portkey"]
    quantiles = ("answer", "first", "token")
    figures = {f"{name}_{which}_ms": 1.0 for name in quantiles for which in ("p50", "p99")}
    for row in ROWS:
        for name in names:
            everything.add(name, row.name, {"cpu_us": 1.0, "memory_mib": 1.0, **figures})

    assert all(one.value is not None for one in judged(everything))
    assert len(TARGETS) == 13


def test_bodies_have_the_size_that_they_are_named_for(tmp_path):
    for row in (row for row in ROWS if row.body_bytes):
        size = body_of(row, tmp_path).stat().st_size

        assert row.body_bytes * 0.98 <= size <= row.body_bytes * 1.1 + 500, row.name


def test_tables_are_made_of_what_was_measured_and_say_what_failed(capsys):
    from rich.console import Console

    results = results_of(fleet=180.0, nginx=20.0)
    results.fail("LiteLLM", "plain 16", "16 errors")
    console = Console(width=140)
    row = next(row for row in ROWS if row.name == "plain 16")
    for table in tables(results, [row], [GATEWAY, "nginx", "LiteLLM"]):
        console.print(table)
    console.print(verdicts(results))

    printed = capsys.readouterr().out
    assert "180.0" in printed
    assert "LiteLLM failed: 16 errors" in printed
    assert "not measured" in printed


def test_the_document_has_the_figures_of_the_run_beside_it():
    """`python -m bench.figures` puts them there."""
    told = json.loads(REFERENCE.read_text())

    assert DOCUMENT.read_text() == inserted(DOCUMENT.read_text(), told)
    assert f"| {GATEWAY} |" in inserted("", told)


def test_a_profile_is_added_up_by_room():
    """What is built in counts where it is called from; what attrs makes, where its class stands."""
    formats = f"{Path.cwd()}/gateway/formats"
    reader, size = (f"{formats}/chat.py", 1, "read"), (f"{formats}/sizes.py", 2, "size_of")
    made = ("<attrs generated methods gateway.model.Exchange>", 3, "__init__")
    waits = ("/usr/lib/python3.11/asyncio/tasks.py", 4, "wait")
    found = {
        reader: (1, 1, 0.5, 2.0, {}),
        size: (2, 2, 0.25, 0.5, {}),
        made: (3, 3, 0.125, 0.125, {}),
        waits: (4, 4, 1.0, 1.0, {}),
        ("~", 0, "<built-in method len>"): (
            5,
            5,
            0.5,
            0.5,
            {size: (3, 3, 0.25, 0.25), waits: (2, 2, 0.25, 0.25)},
        ),
    }

    assert by_room(found) == {
        "gateway/formats": (1.0, 6),
        "gateway/model": (0.125, 3),
        "asyncio": (1.25, 6),
    }


def test_the_chart_is_xml_with_a_bar_for_each_system():
    drawn = chart("CPU <time>", "note", [Bar("nginx & co", 20.0), Bar("ours", 180.0, is_ours=True)], "µs")

    root = ElementTree.fromstring(drawn)
    bars = root.findall("{http://www.w3.org/2000/svg}rect")
    widths = [float(bar.attrib["width"]) for bar in bars]
    assert len(bars) == 2
    assert widths[0] < widths[1]


def test_the_cpu_of_a_tree_is_that_of_its_processes():
    burning = "while sum(range(10_000)) and __import__('time').process_time() < 0.5: pass\ninput()"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burning!r}])"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as process:
        try:
            while machine.cpu_s(process.pid) < 0.5:
                assert process.poll() is None
            assert len(machine.tree(process.pid)) == 2
            assert machine.memory_bytes(process.pid) > 5 * 2**20
        finally:
            process.communicate(b"\n")


def test_what_is_started_on_some_cores_stays_there():
    before = os.sched_getaffinity(0)
    with machine.on(machine.SYSTEM):
        script = "import os; print(sorted(os.sched_getaffinity(0)))"
        told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert told.stdout.strip() == str(sorted(machine.SYSTEM))
    assert os.sched_getaffinity(0) == before


def test_the_double_answers_as_a_backend_does():
    import httpx

    try:
        program("double")
    except NoCompiler as error:
        pytest.skip(str(error))
    body = {"model": "three", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    with Double([Model("three", 3)]) as double, httpx.Client(base_url=double.url, trust_env=False) as client:
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["three"]
        streamed = client.post("/v1/chat/completions", json=body).text
        plain = client.post("/api/chat", json={**body, "stream": False}).json()

    assert streamed.count('"content":"@') == 3
    assert streamed.endswith("data: [DONE]\n\n")
    assert plain["done"] is True
