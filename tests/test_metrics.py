"""Figures for Prometheus: right, cheap to have, readable by the operator alone, and without a tenant's name."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client

from maas import metrics, queue, scraping
from tests.conftest import ROOT
from tests.queueing import empty_queue, push
from tests.webhook_faults import free_port

NOTE = (
    "from maas import metrics; metrics.observe_batch({label!r}, [0.2, 0.3], seconds=0.04, inputs=3); "
    "metrics.of_model({label!r}).count('answered', 2)"
)


def families(text: bytes) -> list[Any]:
    from prometheus_client.parser import text_string_to_metric_families  # not before maas.metrics has said where figures are kept

    return list(text_string_to_metric_families(text.decode()))


def read(text: bytes, **labels: str) -> dict[str, float]:
    """Samples with these labels, by name."""
    samples = [sample for family in families(text) for sample in family.samples]
    return {sample.name: sample.value for sample in samples if labels.items() <= sample.labels.items()}


def in_another_process(code: str) -> None:
    code = f"import django; django.setup(); {code}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


def test_figures_of_several_processes_are_added_up_and_outlive_them() -> None:
    label = f"model-{uuid4().hex[:8]}"
    metrics.observe_batch(label, [1.5], seconds=0.1, inputs=1)
    for _ in range(2):
        in_another_process(NOTE.format(label=label))
    found = read(metrics.render(), model=label)
    assert (found["maas_queue_seconds_count"], round(found["maas_queue_seconds_sum"], 6)) == (5, 2.5)
    assert (found["maas_batch_size_count"], found["maas_batch_size_sum"]) == (3, 7)
    assert (found["maas_compute_seconds_count"], found["maas_calls_total"]) == (3, 4)


def test_memory_of_processes_that_ended_is_not_counted() -> None:
    metrics.set_loaded_bytes(5)
    in_another_process("from maas import metrics; metrics.set_loaded_bytes(1000)")
    assert read(metrics.render())["maas_models_loaded_bytes"] == 5
    metrics.set_loaded_bytes(0)


def test_files_of_a_life_that_is_over_are_forgotten_and_those_of_the_living_are_kept(tmp_path, settings_of) -> None:
    with settings_of(MAAS_HOME=tmp_path):
        metrics.folder().mkdir(parents=True)
        dead, mine = metrics.folder() / "counter_999999999.db", metrics.folder() / f"counter_{os.getpid()}.db"
        for path in (dead, mine):
            path.touch()
        metrics.begin()
        assert dead.exists()  # a sum of counters must not fall
        mine.unlink()
        metrics.begin()
        assert not dead.exists()


def test_the_depth_is_what_waits_now_by_model() -> None:
    empty_queue()
    known, idle, private = uuid4(), uuid4(), uuid4()
    queue.label({known: "known", idle: "idle"})
    push(known, uuid4(), 3, n=2)
    push(private, uuid4(), 2)
    text = metrics.render()
    depths = {label: read(text, model=label)["maas_queue_depth"] for label in ("known", "idle", "other")}
    assert depths == {"known": 6, "idle": 0, "other": 2}
    empty_queue()


def test_models_of_organisations_have_no_label_of_their_own() -> None:
    assert metrics.label_of("acme/secret-plans", is_shared=False) == "other"
    assert metrics.label_of("minilm-embed", is_shared=True) == "minilm-embed"


# ---------- who may read ----------
def get(peer: str, **headers: str) -> tuple[int, str]:
    answer = Client().get("/metrics", REMOTE_ADDR=peer, **{f"HTTP_{name}": value for name, value in headers.items()})
    return answer.status_code, answer.content.decode()


@pytest.mark.parametrize(("peer", "status"), [("127.0.0.1", 200), ("::1", 200), ("::ffff:127.0.0.1", 200), ("10.1.2.3", 403), ("", 403)])
def test_only_this_machine_reads_metrics_by_itself(peer, status) -> None:
    found, text = get(peer)
    assert found == status
    assert ("maas_queue_depth" in text) == (status == 200)
    assert status == 200 or "MAAS_METRICS_ALLOW" in text


def test_a_header_does_not_bring_a_stranger_to_this_machine() -> None:
    assert get("10.1.2.3", X_FORWARDED_FOR="127.0.0.1")[0] == 403


def test_behind_a_proxy_its_own_address_counts_for_nothing(settings_of) -> None:
    """Its peers are all on this machine: only what the proxy says of its caller decides, and that is never this machine."""
    with settings_of(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"), MAAS_METRICS_ALLOW=["127.0.0.0/8", "::1", "10.0.0.0/8"]):
        assert get("127.0.0.1")[0] == 403
        assert get("127.0.0.1", X_FORWARDED_FOR="203.0.113.7")[0] == 403
        assert get("127.0.0.1", X_FORWARDED_FOR="127.0.0.1")[0] == 403
        assert get("127.0.0.1", X_FORWARDED_FOR="10.0.0.1, 203.0.113.7")[0] == 403
        assert get("127.0.0.1", X_FORWARDED_FOR="203.0.113.7, 10.0.0.1")[0] == 200


def test_other_networks_read_when_the_operator_says_so(settings_of) -> None:
    with settings_of(MAAS_METRICS_ALLOW=["10.0.0.0/8"]):
        assert (get("10.1.2.3")[0], get("127.0.0.1")[0]) == (200, 403)


def test_metrics_are_read_and_not_written() -> None:
    assert Client().post("/metrics").status_code == 405


def test_a_port_of_its_own_serves_the_same(settings_of) -> None:
    port = free_port()
    server = scraping.serve(port)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert "maas_queue_depth" in answer.read().decode()
        with settings_of(MAAS_METRICS_ALLOW=["10.0.0.0/8"]), pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10)
    finally:
        server.shutdown()
        server.server_close()


def test_the_page_says_what_each_figure_is() -> None:
    text = (Path(ROOT) / "docs" / "metrics.md").read_text()
    for family in families(metrics.render()):
        assert family.name in text
