"""Versions in memory: loaded aside, measured, warmed up, dropped by age; what cannot be loaded harms nobody else."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from uuid import uuid4

import pytest
from django.core.files.storage import default_storage
from django.db import OperationalError

from apps.catalog import services as catalog
from apps.catalog import shipping
from apps.catalog.models import Model, Version
from maas import errors
from maas.tenancy import SystemUse, as_system
from tests import tiny
from workers import fetching, versions
from workers.predict import Predictor
from workers.versions import LoadedVersions

NUMBERS = count(1)
NAME = "tests/versions"  # its export is shared with other runs
LABELS = ["dark", "grey", "light"]
Make = Callable[..., Version]


@pytest.fixture
def make(tmp_path, cast) -> Iterator[Make]:
    """Versions of a private model of a few kilobytes, gone afterwards; they share an export unless `labels` are their own."""
    made: list[Version] = []
    alone = set()

    def one(*, width: int = 4, labels: list[str] = LABELS) -> Version:
        folder = tmp_path / str(next(NUMBERS))
        tiny._make(folder)
        (folder / "train.toml").write_text(uuid4().hex)  # so that each has a content of its own
        (folder / "config.json").write_text(json.dumps({"width": width, "labels": labels, "size": 32}))
        made.append(store(folder, cast.tenant))
        alone.update([made[-1].id] if labels is not LABELS else [])
        return made[-1]

    yield one
    for version in made:
        if version.id in alone:
            fetching.discard(version)  # its export too
        shutil.rmtree(fetching._fetched(version), ignore_errors=True)
        with as_system(SystemUse.LOAD_CATALOGUE):
            Version.objects.filter(pk=version.pk).delete()


def store(folder: Path, tenant) -> Version:
    """The rows and the bytes of a tenant's own version."""
    manifest = tiny.write_manifest(folder)
    files = {name: shipping._store(folder, name, entry) for name, entry in manifest["files"].items()}
    with as_system(SystemUse.LOAD_CATALOGUE):
        model, _ = Model.objects.get_or_create(name=NAME, defaults={"task": manifest["task"], "description": "", "tenant": tenant})
        version = model.versions.create(
            number=next(NUMBERS),
            digest=uuid4().hex,
            files=files,
            rate=manifest["rate"],
            recipe="image_cnn",
            licence="",
            card="",
            tenant=tenant,
        )
    for digest in files.values():
        private = catalog.artifact_path(tenant.id, digest)
        if not default_storage.exists(private):
            default_storage.save(private, catalog.default_storage.open(catalog.artifact_path(None, digest)))
    return version


def answers(predictor: Predictor) -> bool:
    found = predictor.predict([tiny.picture_bytes(40)], [{}])
    return isinstance(found[0].output, list)


def until_ready(loaded: LoadedVersions, version: Version, seconds: float = 60) -> tuple[Version, Predictor]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := loaded.ready(version.id):
            return found
        time.sleep(0.02)
    raise AssertionError("never ready")


# ---------- aside ----------
def test_ready_says_none_at_once_and_the_version_a_little_later(make) -> None:
    loaded, version = LoadedVersions(), make()
    begun = time.monotonic()
    assert loaded.ready(version.id) is None
    assert time.monotonic() - begun < 0.5  # the load itself takes an export
    found, predictor = until_ready(loaded, version)
    assert (found.id, answers(predictor)) == (version.id, True)
    assert loaded.get(version.id)[1] is predictor


def test_a_version_that_is_exported_does_not_hold_up_the_others(make, monkeypatch) -> None:
    loaded, here = LoadedVersions(), make()
    slow = make(labels=[uuid4().hex, "b", "c"])  # nobody has exported that
    loaded.get(here.id)
    gate = held(monkeypatch, slow)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(loaded.get, slow.id)
        assert loaded.ready(slow.id) is None
        assert answers(loaded.get(here.id)[1])
        assert answers(loaded.get(make().id)[1])  # also one that has to be opened first
        gate.set()
        assert answers(waiting.result()[1])


def held(monkeypatch, version: Version) -> threading.Event:
    """The export of one version waits for an event."""
    gate, prepare = threading.Event(), fetching.prepare_version

    def waits(asked: Version, report: Callable[[str], None]) -> None:
        assert asked.id != version.id or gate.wait(60)
        prepare(asked, report)

    monkeypatch.setattr(fetching, "prepare_version", waits)
    return gate


def test_many_threads_load_a_version_once(make, monkeypatch) -> None:
    loaded, version, opened = LoadedVersions(), make(), []
    open_warm = versions.open_warm
    monkeypatch.setattr(versions, "open_warm", lambda folder: opened.append(folder) or open_warm(folder))
    with ThreadPoolExecutor(8) as pool:
        found = [one.result()[1] for one in [pool.submit(loaded.get, version.id) for _ in range(8)]]
    assert len(opened) == 1 and len(set(map(id, found))) == 1


# ---------- memory ----------
def test_the_version_used_longest_ago_goes_and_one_that_is_too_large_is_served_alone(make) -> None:
    first, second, third = make(), make(), make()
    loaded = LoadedVersions(limit=2**40)
    for version in (first, second, first, third):
        loaded.get(version.id)
    loaded.limit = loaded.memory_bytes() - 1
    fourth = make()
    loaded.get(fourth.id)
    assert second.id not in loaded.loaded and fourth.id in loaded.loaded
    loaded.limit = 1
    assert answers(loaded.get(second.id)[1])
    assert list(loaded.loaded) == [second.id]


def test_a_dropped_version_stays_valid_for_the_thread_that_runs_it(make) -> None:
    loaded, first, second = LoadedVersions(limit=1), make(), make()
    _, running = loaded.get(first.id)
    loaded.get(second.id)
    assert first.id not in loaded.loaded
    assert answers(running)


def test_what_a_version_holds_is_measured(make, monkeypatch) -> None:
    loaded, version, kept = LoadedVersions(), make(), []
    open_warm = versions.open_warm
    monkeypatch.setattr(versions, "open_warm", lambda folder: kept.append(b"x" * 60 * 2**20) or open_warm(folder))
    loaded.get(version.id)
    assert 60 * 2**20 <= loaded.memory_bytes() < 200 * 2**20
    assert loaded.sizes() == {f"{NAME}@{version.number}": loaded.memory_bytes()}


def test_a_version_counts_at_least_as_its_files_and_on_a_gpu_as_its_limit_there(make, settings_of) -> None:
    _, predictor = LoadedVersions().get(make().id)
    assert versions._size(predictor, 0) == predictor.least_bytes > 0
    with settings_of(MAAS_DEVICE="cuda:0", MAAS_GPU_MEMORY_MB=500):
        assert versions._size(predictor, 0) == 500 * 2**20


# ---------- warm-up ----------
def test_a_version_has_run_alone_and_in_a_full_batch_before_it_is_handed_out(make, monkeypatch, settings_of) -> None:
    from workers.recipes import image_cnn

    sizes, run = [], image_cnn.Served.run
    monkeypatch.setattr(image_cnn.Served, "run", lambda self, encoded: sizes.append(len(encoded)) or run(self, encoded))
    with settings_of(MAAS_BATCH_LIMIT=16):
        LoadedVersions().get(make().id)
    assert sizes[-2:] == [1, 16]


@pytest.mark.parametrize("family", ["image_cnn", "bert_qa", "transformer_translation", "sentence_encoder"])
def test_the_smallest_input_of_every_recipe_is_answered(family) -> None:
    from tests.test_catalogue import BARS, manifest, predictor

    name = next(name for name in BARS if manifest(name)["recipe"] == family)
    served = predictor(name)
    found = served.predict([served.family.SMALLEST], [served.family.TRIAL])
    assert not isinstance(found[0], Exception)


def test_a_version_without_usable_samples_is_warmed_up_with_the_smallest_input(make, monkeypatch) -> None:
    version = make()
    folder = fetching.fetch_folder(version)
    fetching.prepare_version(version, print)
    (folder / "samples.jsonl").write_text("not json\n")
    assert answers(LoadedVersions().get(version.id)[1])


# ---------- what cannot be loaded ----------
def failure_of(loaded: LoadedVersions, version: Version) -> errors.Unavailable:
    with pytest.raises(errors.Unavailable) as caught:
        loaded.get(version.id)
    assert caught.value.code == "model_unavailable"
    assert version.model.name in caught.value.message and "Nothing was charged" in caught.value.message
    assert "/" not in caught.value.message.replace(version.model.name, "")  # no paths of this machine
    return caught.value


def test_a_missing_file_in_storage_is_told_by_its_name(make, cast) -> None:
    version = make()
    default_storage.delete(catalog.artifact_path(cast.tenant.id, version.files["train.toml"]))
    assert "train.toml is missing" in failure_of(LoadedVersions(), version).message


def test_a_file_that_was_changed_in_storage_is_told_by_its_name(make, cast) -> None:
    version = make()
    path = Path(default_storage.path(catalog.artifact_path(cast.tenant.id, version.files["train.toml"])))
    path.write_text("other")
    assert "train.toml in storage has another sha256" in failure_of(LoadedVersions(), version).message
    assert not fetching._fetched(version).exists()


def test_a_model_whose_weights_do_not_fit_is_told_and_the_others_are_served(make) -> None:
    loaded, good = LoadedVersions(), make()
    broken = make(width=5)
    assert "could not be exported" in failure_of(loaded, broken).message
    assert answers(loaded.get(good.id)[1])


def test_a_network_file_that_was_damaged_is_made_anew(make) -> None:
    version = make(labels=[uuid4().hex, "b", "c"])
    fetching.prepare_version(version, print)
    network = next(fetching.exported_folder(fetching.fetch_folder(version), fetching.export_folder()).glob("*.onnx"))
    network.write_bytes(b"no network")
    assert answers(LoadedVersions().get(version.id)[1])
    assert network.stat().st_size > 1000


def test_a_network_that_stays_broken_is_tried_again_after_the_pause_and_not_before(make, monkeypatch) -> None:
    loaded, version, tries = LoadedVersions(), make(labels=[uuid4().hex, "b", "c"]), []
    open_exported = versions.Predictor.__init__.__globals__["open_exported"]

    def breaks(folder: Path, **budget):
        tries.append(folder)
        next(folder.glob("*.onnx")).write_bytes(b"no network")
        return open_exported(folder, **budget)

    with monkeypatch.context() as patch:
        patch.setitem(versions.Predictor.__init__.__globals__, "open_exported", breaks)
        assert "its network cannot be read" in failure_of(loaded, version).message
        assert failure_of(loaded, version).retry_after == 30
        assert len(tries) == 2  # once as it lay there, once made anew
        monkeypatch.setattr(versions, "PAUSE", 0.0)
        loaded.failed.clear()
        failure_of(loaded, version)
        assert len(tries) == 3
    fetching.discard(version)
    assert answers(loaded.get(version.id)[1])


def test_ready_raises_what_loading_raised_until_the_pause_is_over(make, monkeypatch) -> None:
    monkeypatch.setattr(versions, "PAUSE", 1.0)
    loaded, broken = LoadedVersions(), make(width=5)
    with pytest.raises(errors.Unavailable, match="could not be exported"):
        until_ready(loaded, broken)
    time.sleep(1.1)
    assert loaded.ready(broken.id) is None  # trying again
    with pytest.raises(errors.Unavailable):
        loaded.get(broken.id)  # waits for the one in the background


def test_a_store_that_is_away_stays_what_it_is_and_passes(make, monkeypatch) -> None:
    monkeypatch.setattr(versions, "AWAY", 0.0)
    loaded, version = LoadedVersions(), make()

    def away(asked: Version) -> Path:
        raise OperationalError("the connection is closed")

    with monkeypatch.context() as patch:
        patch.setattr(fetching, "fetch_folder", away)
        with pytest.raises(OperationalError):
            loaded.get(version.id)
    assert answers(loaded.get(version.id)[1])


def test_a_device_that_is_not_there_is_told_and_nothing_falls_back_in_silence(make, settings_of) -> None:
    with settings_of(MAAS_DEVICE="tensorrt:7"):
        told = failure_of(LoadedVersions(), make())
    assert "RuntimeError" in repr(told.__cause__) and "MAAS_DEVICE=cpu" in str(told.__cause__)
