"""The bench of online inference, short and without peers: what it compares and counts, never how fast anything is.

The stack that it starts has a home of its own, as bin/up would make it.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.online import answers, page, raw, reference, rounds, stack, summary
from bench.online.load import LoadError, Target, Window, press, write_bodies
from bench.online.subjects import TINY, Subject, catalogue, open_subjects
from bench.soak import Memory
from tests.conftest import EXPORTS, needs


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> rounds.Plan:
    """The tiny model alone, one round of windows of a second."""
    needs(shutil.which("wrk") is not None, "no wrk, the load generator: apt-get install wrk")
    folder = tmp_path_factory.mktemp("bench")
    models = catalogue(folder / "models", (TINY,))
    subjects = open_subjects([TINY], models, EXPORTS, None, seed=7)
    return rounds.Plan(subjects, [rounds.MAAS], [1, 8], 1, 1.0, 0.5, folder, folder / "home", models)


@pytest.fixture(scope="module")
def running(plan: rounds.Plan) -> Iterator[stack.Stack]:
    """maas with everything on, and a key on a paid plan."""
    (plan.home / "cache").mkdir(parents=True)
    (plan.home / "cache" / "exports").symlink_to(EXPORTS)
    plan.home.parent.chmod(0o711)  # PostgreSQL runs as another user under root
    plan.home.parent.parent.chmod(0o711)
    with stack.full_stack(plan.home, plan.models) as found:
        yield found


@pytest.fixture
def subject(plan: rounds.Plan) -> Subject:
    return plan.subjects[0]


def test_maas_gives_the_answers_of_the_bare_model(running: stack.Stack, subject: Subject) -> None:
    target = running.running(subject.name).target
    found = [target.read(answer) for answer in answers.ask_all(target, subject.inputs[:24])]
    answers.compare("maas", found, reference.reference(replace(subject, inputs=subject.inputs[:24])))


def test_each_call_of_the_load_is_in_the_ledger_once(running: stack.Stack, plan: rounds.Plan, subject: Subject) -> None:
    server, (calls, units) = running.running(subject.name), running.ledger(subject.name)
    bodies = write_bodies(plan.cache / "bodies.jsonl", [server.target.body(value) for value in subject.inputs])
    window = press(server.target, bodies, concurrency=8, seconds=2, cpu=server.cpu)
    assert window.failed == window.unanswered == 0 and window.answered > 0 and window.cpu_ms > 0
    assert rounds.expect(running, subject, calls + window.answered, units + 3 * window.answered)
    with pytest.raises(LoadError, match="ledger"):
        rounds.expect(running, subject, calls + window.answered + 1, None, tries=1)


def test_every_limit_of_the_measured_organisation_is_counted(running: stack.Stack, subject: Subject) -> None:
    """A load that is not limited at all would be measured without the price of limits."""
    target = running.running(subject.name).target
    head = answers.headers_of(target, subject.inputs[0])
    assert int(head["x-ratelimit-limit-requests"]) == 10_000_000
    assert int(head["x-ratelimit-remaining-requests"]) < 10_000_000


def test_a_rate_is_held_and_calls_that_fail_are_told(running: stack.Stack, plan: rounds.Plan, subject: Subject) -> None:
    server = running.running(subject.name)
    bodies = write_bodies(plan.cache / "bodies.jsonl", [server.target.body(value) for value in subject.inputs])
    held = press(server.target, bodies, concurrency=4, seconds=2, rate=10)
    assert held.answered <= 25 and held.failed == 0
    nobody = press(replace(server.target, key="maas_wrong"), bodies, concurrency=1, seconds=0.5)
    assert nobody.failed == nobody.answered > 0


def test_memory_is_counted_by_part(running: stack.Stack) -> None:
    memory = Memory(running.home, running.pid)
    memory.sample()
    assert {"web", "online", "postgres", "redis"} <= memory.parts[0].keys()
    assert min(memory.parts[0].values()) > 2**20
    assert memory.near(0)["web"] == pytest.approx(memory.parts[0]["web"] / 2**20)


def test_the_calibration_runs_batches_and_single_inputs(subject: Subject) -> None:
    found = raw.calibrate(subject, 0.2)
    assert found.per_second > 0 and found.sorted_per_second > 0
    assert 0 < found.alone_ms <= found.one_thread_ms


def test_different_answers_are_refused() -> None:
    one = [{"label": "cat", "score": 0.5}]
    answers.compare("a server", [one], [[{"label": "cat", "score": 0.50005}]])
    for other in ([{"label": "dog", "score": 0.5}], [{"label": "cat", "score": 0.51}], [], [{"label": "cat"}]):
        with pytest.raises(answers.Different):
            answers.compare("a server", [one], [other])


def test_medians_ratios_and_the_page_come_from_the_rounds(tmp_path: Path) -> None:
    figures = rounds.Figures()
    for rate in (100.0, 300.0, 200.0):
        for server, times in (("maas", 1), ("fastapi", 2)):
            figures.windows.setdefault("minilm-embed", {}).setdefault(server, []).append(
                vars(Window(16, 1, rate * times, 9, 9, 9, 9, 1, 9, 0))
            )
        figures.raw.setdefault("minilm-embed", []).append(vars(raw.Raw(2, 1, 2 * rate, rate, "2 runs of 1 thread", 1, 1, 1)))
    found = summary.summarise(figures)
    row = found["minilm-embed"]["servers"]["maas"][16]
    assert (row["per_second"], row["lowest"], row["of_raw"], row["of_best_peer"]) == (200, 100, 0.5, 0.5)
    assert found["minilm-embed"]["noise"]["per_second"] == 1.0
    machine = dict.fromkeys(("cpu", "cores", "memory_gib", "system", "python"), "some")
    options = {"rounds": 3, "seconds": 1, "inputs": {"minilm-embed": 96}}
    facts = {"date": "today", "machine": machine, "versions": {}, "peers": {}, "maas": {}, "options": options}
    page.write(json.loads(json.dumps(summary.as_json(figures, found, facts))), tmp_path)
    assert "| maas | 16 | 200.0 | 100.0..300.0 |" in (tmp_path / "performance.md").read_text()
    assert (tmp_path / "performance.svg").read_text().count("<rect") >= 4


def test_at_least_64_different_inputs_take_turns(subject: Subject) -> None:
    assert len({json.dumps(value) for value in subject.inputs}) >= 64
    assert Path(subject.facts["onnx"]).exists()


def test_a_missing_load_generator_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    target = Target("http://127.0.0.1:9", "/", lambda value: value, lambda found: found)
    with pytest.raises(LoadError, match="apt-get install wrk"):
        press(target, tmp_path / "none", concurrency=1, seconds=1)
