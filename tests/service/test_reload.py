"""What changes on disk is served, what is bad never replaces what is good, nobody notices."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from repository import bare, linear, publish, reference

from service import device, errors
from service.models import model, policy
from service.models.policy import Policy
from service.models.registry import Registry
from service.protocols import repository
from service.settings_read import SettingsError, parse

pytestmark = pytest.mark.slow

X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
LOADER = partial(model.load, choice=device.choose("cpu"), threads=1, capacity_samples=1000)
Make = Callable[..., Registry]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Registry] = []

    def begin(text: str = "latest", loader=LOADER, root: Path = tmp_path) -> Registry:
        made.append(Registry(root, loader, policy=policy.parse(text)))
        made[-1].load()
        return made[-1]

    yield begin
    for registry in made:
        assert registry.close(timeout_s=60)


def put(root: Path, version: int, name: str = "m", **changes) -> Path:
    return publish(root, name, linear(seed=version), version, test={"x": X}, **changes)


def put_bad(root: Path, version: int, name: str = "m") -> Path:
    return put(root, version, name, off_by=1.0)


def state(registry: Registry, name: str = "m") -> tuple[list[int], list[int], list[int]]:
    entry = registry.entries[name]
    return list(entry.versions), list(entry.rejected), entry.older


# --- policies ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latest", ([4], [5], [3, 2, 1])),
        ("latest:2", ([4, 3], [5], [2, 1])),
        ("latest:9", ([4, 3, 1], [5, 2], [])),
        ("all", ([4, 3, 1], [5, 2], [])),
        ("specific:1,3", ([3, 1], [], [5, 4, 2])),
        ("specific:2,7,1", ([1], [7, 2], [5, 4, 3])),
        ("specific:5", ([], [5], [4, 3, 2, 1])),
    ],
)
def test_policies(tmp_path: Path, make: Make, text: str, expected):
    for version in (1, 3, 4):
        put(tmp_path, version)
    for version in (2, 5):
        put_bad(tmp_path, version)
    registry = make(text)
    assert state(registry) == expected
    for version in expected[0]:
        assert registry.find("m", str(version)).version == version
    if expected[0]:
        assert registry.find("m").version == expected[0][0]
    else:
        with pytest.raises(errors.ModelUnavailable, match="version 5"):
            registry.find("m")
    for version in (*expected[1], *expected[2]):
        with pytest.raises((errors.UnknownVersion, errors.ModelUnavailable)):
            registry.find("m", str(version))


def test_the_highest_versions_own_policy_wins(tmp_path: Path, make: Make):
    put(tmp_path, 1)
    put(tmp_path, 2, serving={"version_policy": "all"})
    put(tmp_path, 1, "other")
    put(tmp_path, 2, "other")
    registry = make()
    assert state(registry) == ([2, 1], [], [])
    assert state(registry, "other") == ([2], [], [1])
    put(tmp_path, 3)
    assert registry.reload() == ["m"]
    assert state(registry) == ([3], [], [2, 1])


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"serving": {"version_policy": 7}}', b"\xff"])
def test_a_broken_manifest_has_no_policy(tmp_path: Path, text: bytes):
    folder = put(tmp_path, 1)
    (folder / "model.json").write_bytes(text)
    assert policy.of_model("m", {1: folder}, Policy(wanted=None)) == Policy(wanted=None)


@pytest.mark.parametrize("text", ["", "newest", "latest:0", "all:1", "specific:", "specific:1,"])
def test_a_policy_that_is_none(text: str):
    with pytest.raises(ValueError, match="expected latest"):
        policy.parse(text)
    if text:
        with pytest.raises(SettingsError, match="--version-policy"):
            parse(["--version-policy", text], {})


# --- reload -----------------------------------------------------------------------------


def gone(ref: Callable[[], object]) -> bool:
    end = time.monotonic() + 60
    while ref() is not None and time.monotonic() < end:
        time.sleep(0.001)
    return ref() is None


def test_a_new_version_replaces_the_old_one_which_ends(tmp_path: Path, make: Make):
    put(tmp_path, 1)
    registry = make()
    old = weakref.ref(registry.find("m"))
    threads = registry.find("m").batcher.runners.threads
    assert registry.reload() == []
    changes = registry.changes
    put(tmp_path, 2)
    assert registry.reload() == ["m"]
    assert registry.changes == changes + 1
    assert state(registry) == ([2], [], [1])
    assert gone(old)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_who_has_found_the_old_version_can_still_use_it(tmp_path: Path, make: Make):
    put(tmp_path, 1)
    registry = make()
    found = registry.find("m")
    put(tmp_path, 2)
    registry.reload()
    answer = asyncio.run(found.batcher.submit({"x": X}, 3, time.monotonic() + 60))
    expected = reference(linear(seed=1), {"x": X})["scores"]
    np.testing.assert_allclose(answer["scores"], expected, rtol=1e-5)


def test_a_bad_version_never_replaces_a_good_one_and_is_not_tried_over_and_over(
    tmp_path: Path, make: Make
):
    tried: list[int] = []

    def loader(folder: Path, name: str, version: int) -> model.ServedModel:
        tried.append(version)
        return LOADER(folder, name, version)

    put(tmp_path, 1)
    registry = make(loader=loader)
    served = registry.find("m")
    folder = put_bad(tmp_path, 2)
    assert registry.reload() == ["m"]
    assert registry.find("m") is served
    assert "self-test failed" in registry.entries["m"].rejected[2]
    assert registry.reload() == []
    assert tried == [1, 2]
    assert registry.reload("m") == []  # asked for by name it is tried again
    assert tried == [1, 2, 2]
    shutil.rmtree(folder)
    put(tmp_path, 2)
    assert registry.reload() == ["m"]
    assert state(registry) == ([2], [], [1])


def test_a_served_version_that_is_spoilt_on_disk_serves_on(tmp_path: Path, make: Make):
    folder = put(tmp_path, 1)
    registry = make()
    served = registry.find("m")
    (folder / "model.onnx").write_bytes(b"spoilt")
    assert registry.reload() == ["m"]
    assert registry.find("m") is served
    assert "serves on" in registry.entries["m"].rejected[1]
    assert registry.reload() == []
    shutil.rmtree(folder)
    put(tmp_path, 1)
    assert registry.reload() == ["m"]
    assert registry.find("m") is not served
    assert state(registry) == ([1], [], [])


def test_versions_and_models_that_go_away(tmp_path: Path, make: Make):
    for version in (1, 2):
        put(tmp_path, version)
    put(tmp_path, 1, "n")
    registry = make()
    shutil.rmtree(tmp_path / "m" / "2")
    assert registry.reload() == ["m"]
    assert registry.find("m").version == 1
    shutil.rmtree(tmp_path / "m")
    assert registry.reload() == ["m"]
    with pytest.raises(errors.UnknownModel):
        registry.find("m")
    assert registry.find(None).name == "n"
    with pytest.raises(errors.UnknownModel):
        registry.reload("m")


def empty(folder: Path) -> None:
    for each in folder.iterdir():
        shutil.rmtree(each)


@pytest.mark.parametrize("name", [None, "m"])
def test_an_emptied_folder_drops_nothing(
    tmp_path: Path, make: Make, caplog: pytest.LogCaptureFixture, name: str | None
):
    """As a volume that is not mounted any more looks: its place is there, and nothing in it."""
    for name_of_one in ("m", "n"):
        put(tmp_path, 1, name_of_one)
    put(tmp_path, 2)
    registry = make()
    served = registry.every_version()
    empty(tmp_path)
    if name is not None:
        with pytest.raises(errors.UnknownModel):
            registry.reload(name)
    assert registry.reload() == []
    assert registry.reload() == []
    assert registry.every_version() == served
    assert registry.emptied == {"m", "n"}
    assert registry.find("m").version == 2
    assert caplog.text.count("is a volume not mounted?): 'm', 'n', served on from memory") == 1
    put(tmp_path, 3)
    put(tmp_path, 1, "n")
    assert registry.reload() == ["m", "n"]
    assert registry.emptied == frozenset()
    assert registry.find("m").version == 3
    assert "the folders have versions again: 'm', 'n'" in caplog.text


def test_the_emptied_folder_of_one_model_drops_nothing_either(tmp_path: Path, make: Make):
    for name_of_one in ("m", "n"):
        put(tmp_path, 1, name_of_one)
    registry = make()
    empty(tmp_path / "m")
    assert registry.reload() == []
    assert registry.reload("m") == []
    assert (registry.find("m").version, registry.emptied) == (1, {"m"})
    shutil.rmtree(tmp_path / "m")  # not emptied but taken away: that is meant
    assert registry.reload() == ["m"]
    assert (set(registry.entries), registry.emptied) == ({"n"}, frozenset())


def test_what_is_unloaded_is_not_kept_for_an_emptied_folder(tmp_path: Path, make: Make):
    put(tmp_path, 1)
    registry = make()
    empty(tmp_path)
    assert registry.reload() == []
    registry.unload("m")
    registry.reload()
    assert registry.served() == []
    assert registry.emptied == frozenset()


@pytest.mark.parametrize("gone", [empty, shutil.rmtree])
def test_the_watch_keeps_what_it_served_and_says_so_until_the_folder_is_back(
    tmp_path: Path, make: Make, monkeypatch, caplog: pytest.LogCaptureFixture, gone
):
    models, aside = tmp_path / "models", tmp_path / "aside"
    put(models, 1)
    registry = make(root=models)
    shutil.copytree(models, aside)
    watch = threading.Thread(target=registry.watch, args=(0.01,))
    watch.start()
    gone(models)
    end = time.monotonic() + 60
    while not registry.emptied:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert registry.find("m").version == 1
    shutil.rmtree(models, ignore_errors=True)
    shutil.copytree(aside, models)
    while registry.emptied:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert registry.find("m").version == 1
    assert registry.close(30)
    watch.join(60)
    assert "served on from memory" in caplog.text


def test_unloaded_until_it_is_asked_for_by_name(tmp_path: Path, make: Make):
    put(tmp_path, 1)
    registry = make()
    old = weakref.ref(registry.find("m"))
    registry.unload("m")
    assert gone(old)
    with pytest.raises(errors.ModelUnavailable, match="it was unloaded"):
        registry.find("m")
    put(tmp_path, 2)
    assert registry.reload() == []
    assert registry.reload("m") == ["m"]
    assert registry.find("m").version == 2
    with pytest.raises(errors.UnknownModel):
        registry.unload("nope")


def test_one_of_several_workers_does_not_unload(tmp_path: Path):
    put(tmp_path, 1)
    registry = Registry(tmp_path, LOADER, alone=False)
    registry.load()
    with pytest.raises(errors.NotWithWorkers):
        registry.unload("m")
    assert registry.find("m").version == 1
    assert registry.close(60)


@pytest.mark.parametrize(
    ("alone", "interval_ms", "loads"),
    [(True, 0, True), (False, 1000, True), (False, 0, False)],
)
def test_one_of_several_workers_loads_only_if_the_others_will_notice(
    tmp_path: Path, alone: bool, interval_ms: int, loads: bool
):
    put(tmp_path, 1)
    registry = Registry(tmp_path, LOADER, alone=alone)
    registry.load()
    put(tmp_path, 2)
    settings: Any = SimpleNamespace(watch_interval_ms=interval_ms)
    context: Any = SimpleNamespace(registry=registry, settings=settings)
    if loads:
        asyncio.run(repository.load(context, "m", {}))
    else:
        with pytest.raises(errors.NotWithWorkers, match="do not watch"):
            asyncio.run(repository.load(context, "m", {}))
    assert registry.find("m").version == 1 + loads
    assert registry.close(60)


def test_a_bare_model_is_served_beside_the_files_of_another_server(tmp_path: Path, make: Make):
    bare(tmp_path, "m", linear())
    (tmp_path / "m" / "config.pbtxt").write_text('name: "m" platform: "onnxruntime_onnx"')
    registry = make()
    assert state(registry) == ([1], [], [])
    (tmp_path / "m" / "config.pbtxt").write_text("changed")
    assert registry.reload() == []


def test_no_cuda_during_a_reload_is_a_reason_and_no_end(tmp_path: Path, make: Make):
    put(tmp_path, 1)
    registry = make()
    put(tmp_path, 2)

    def loader(*_) -> model.ServedModel:
        raise device.DeviceUnavailable("the GPU is gone")

    registry._trial.load = loader
    registry.reload()
    assert state(registry) == ([1], [2], [])


# --- watch ------------------------------------------------------------------------------


def ticks(registry: Registry, monkeypatch: pytest.MonkeyPatch, *between: Callable) -> list:
    """Run `watch`, doing `between[i]` before the i-th look; the served version after each."""
    seen: list[list[int]] = []
    steps = iter(between)

    def wait(_: float) -> bool:
        seen.append(list(registry.entries["m"].versions))
        step = next(steps, None)
        if step is None:
            return True
        step()
        return False

    monkeypatch.setattr(registry._stopped, "wait", wait)
    registry.watch(1.0)
    return seen[1:]


def nothing() -> None:
    pass


def test_the_watch_waits_until_nothing_is_written_any_more(tmp_path: Path, make: Make, monkeypatch):
    put(tmp_path, 1)
    registry = make()
    folder = tmp_path / "m" / "2"

    def begin() -> None:
        put(tmp_path, 2)
        (folder / "model.onnx").rename(folder / "later")

    def finish() -> None:
        (folder / "later").rename(folder / "model.onnx")

    seen = ticks(registry, monkeypatch, nothing, begin, finish, nothing, nothing)
    assert seen == [[1], [1], [1], [2], [2]]
    assert registry.entries["m"].rejected == {}


def test_the_watch_sees_what_came_while_the_server_was_loading(
    tmp_path: Path, make: Make, monkeypatch
):
    put(tmp_path, 1)
    registry = make()
    put(tmp_path, 2)  # before the first look
    assert ticks(registry, monkeypatch, nothing, nothing) == [[1], [2]]


def test_a_folder_that_cannot_be_read_for_a_while_is_no_change(
    tmp_path: Path, make: Make, monkeypatch
):
    put(tmp_path, 1)
    registry = make()
    away = tmp_path.with_name(tmp_path.name + "-away")

    def leave() -> None:
        tmp_path.rename(away)

    def come_back() -> None:
        away.rename(tmp_path)

    seen = ticks(registry, monkeypatch, leave, nothing, nothing, come_back, nothing)
    assert seen == [[1]] * 5


def test_a_reload_that_fails_does_not_end_the_watch(tmp_path: Path, make: Make, monkeypatch):
    put(tmp_path, 1)
    registry = make()
    real = registry.reload

    def broken() -> None:
        put(tmp_path, 2)
        monkeypatch.setattr(registry, "reload", lambda: 1 / 0)

    def mended() -> None:
        monkeypatch.setattr(registry, "reload", real)
        put(tmp_path, 3)

    assert ticks(registry, monkeypatch, broken, nothing, mended, nothing) == [[1], [1], [1], [3]]


def test_closing_ends_the_watch(tmp_path: Path):
    put(tmp_path, 1)
    registry = Registry(tmp_path, LOADER)
    registry.load()
    thread = threading.Thread(target=registry.watch, args=(3600.0,))
    thread.start()
    assert registry.close(60)
    thread.join(60)
    assert not thread.is_alive()


# --- under load -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "serving", [{}, {"runners": 2, "max_batch_size": 8}], ids=["auto", "runners"]
)
def test_a_hundred_reloads_under_load_fail_no_request(tmp_path: Path, make: Make, serving):
    """Each answer is compared with the version that gave it; each old version ends."""
    put(tmp_path, 1, batch_invariant=True, serving=serving)
    registry = make()
    expected = {v: reference(linear(seed=v), {"x": X})["scores"] for v in range(1, 102)}
    versions: set[int] = set()
    refs: list[weakref.ref[model.ServedModel]] = []
    done = threading.Event()
    answered = 0

    async def client(i: int) -> None:
        nonlocal answered
        rows = i % 3 + 1
        while not done.is_set():
            found = registry.find("m")
            for _ in range(i % 4):  # a body that takes its time to arrive and be decoded
                await asyncio.sleep(0)
            answer = await found.batcher.submit({"x": X[:rows]}, rows, time.monotonic() + 60)
            np.testing.assert_allclose(
                answer["scores"], expected[found.version][:rows], rtol=1e-4, atol=1e-5
            )
            versions.add(found.version)
            answered += 1

    def reload() -> None:
        try:
            for version in range(2, 102):
                refs.append(weakref.ref(registry.find("m")))
                put(tmp_path, version, batch_invariant=True, serving=serving)
                assert registry.reload() == ["m"]
        finally:
            done.set()

    async def main() -> None:
        await asyncio.gather(asyncio.to_thread(reload), *(client(i) for i in range(12)))

    asyncio.run(main())
    assert registry.find("m").version == 101
    assert answered > 100
    assert len(versions) > 10
    assert all(gone(ref) for ref in refs)


def test_a_real_server_takes_new_versions_while_it_is_asked(start, tmp_path: Path):
    last = 6
    put(tmp_path, 1, batch_invariant=True)
    served = start(tmp_path, "--watch-interval-ms", "20")
    expected = {v: reference(linear(seed=v), {"x": X})["scores"] for v in range(1, last + 1)}

    async def main() -> None:
        async with httpx.AsyncClient(
            base_url=served.url, timeout=60, trust_env=False, verify=False
        ) as client:
            current = 1

            async def ask() -> None:
                nonlocal current
                while current < last:
                    response = await client.post("/predict", json={"inputs": X.tolist()})
                    assert response.status_code == 200, response.text
                    body = response.json()
                    current = max(current, body["model"]["version"])
                    np.testing.assert_allclose(
                        body["outputs"]["scores"], expected[body["model"]["version"]], rtol=1e-4
                    )

            def move(folder: Path) -> None:
                """By one rename, as the converter publishes: half a version is never seen."""
                folder.rename(tmp_path / "m" / folder.name)

            async def deploy() -> None:
                stage = tmp_path.with_name(tmp_path.name + "-stage")
                move(put_bad(stage, 99))
                for version in range(2, last + 1):
                    move(put(stage, version, batch_invariant=True))
                    async with asyncio.timeout(60):
                        while current < version:
                            await asyncio.sleep(0.01)

            await asyncio.gather(deploy(), *(ask() for _ in range(4)))
            shown = (await client.get("/models/m")).json()
            assert shown["versions"] == [last]
            assert shown["rejected"][0]["version"] == 99
            assert "/versions" not in (await client.get("/health/ready")).text

    asyncio.run(main())
    assert served.stop() == 0
