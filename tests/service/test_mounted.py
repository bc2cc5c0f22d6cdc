"""foldserve.app in another application: under a path, with that one's keys, start and end."""

from __future__ import annotations

import gc
import logging
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import pytest
import repository as r
import uvicorn
from fastapi import BackgroundTasks, Depends, FastAPI, Header, HTTPException, Request, Response

import foldserve
from service.device import DeviceUnavailable
from service.models.registry import Registry
from service.settings_read import SettingsError

with warnings.catch_warnings():  # an older Starlette takes names that anyio has given up since
    warnings.simplefilter("ignore", DeprecationWarning)
    from fastapi.testclient import TestClient

ROOT = Path(__file__).parents[2]
X = {"inputs": [[1.0, 2.0, 3.0, 4.0]]}
OCTETS = "application/octet-stream"
SECRET = {"x-team": "let me in"}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    r.publish(root, "animals", r.linear(), test={"x": np.ones((2, 4), np.float32)})
    return root


def expected(seed: int = 0) -> list[list[float]]:
    x = np.asarray(X["inputs"], np.float32)
    return r.reference(r.linear(seed=seed), {"x": x})["scores"].tolist()


def scores(answer: httpx.Response) -> list[list[float]]:
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"]["scores"]


@contextmanager
def under_uvicorn(app: FastAPI, **options: Any) -> Iterator[str]:
    """A real server in a thread, on a free port; its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, **options))
    thread = threading.Thread(target=server.run)
    thread.start()
    end = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < end
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


# --- under a path ------------------------------------------------------------------------


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_every_protocol_under_a_path_of_a_real_server(models: Path, http: str) -> None:
    ml = foldserve.app(models, queue_capacity_samples=20_000)
    app = FastAPI(lifespan=ml.lifespan)
    app.mount("/ml", ml)

    @app.get("/mine")
    async def mine() -> str:
        return "mine"

    with under_uvicorn(app, http=http) as url, httpx.Client(base_url=url, timeout=60) as client:
        np.testing.assert_allclose(
            scores(client.post("/ml/predict", json=X)), expected(), rtol=1e-5
        )
        by_version = client.post("/ml/models/animals/versions/1/predict", json=X)
        assert scores(by_version) == scores(client.post("/ml/predict", json=X))
        tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": X["inputs"][0]}
        v2 = client.post("/ml/v2/models/animals/infer", json={"inputs": [tensor]}).json()
        np.testing.assert_allclose(v2["outputs"][0]["data"], expected()[0], rtol=1e-5)
        v1 = client.post("/ml/v1/models/animals:predict", json={"instances": X["inputs"]}).json()
        np.testing.assert_allclose(v1["predictions"], expected(), rtol=1e-5)
        assert client.get("/ml/v2/health/ready").status_code == 200
        assert client.get("/mine").json() == "mine"
        assert client.get("/predict").json() == {"detail": "Not Found"}, "the outer one's own"
        large = np.ones((20_000, 4), np.float32)  # more than one read of the socket
        binary = {"content-type": OCTETS, "accept": OCTETS}
        answer = client.post("/ml/predict", content=large.tobytes(), headers=binary)
        assert len(answer.content) == 20_000 * 3 * 4


@pytest.fixture
def client(models: Path) -> Iterator[TestClient]:
    ml = foldserve.app(models)
    app = FastAPI(lifespan=ml.lifespan)
    app.mount("/ml", ml)
    with TestClient(app) as made:
        yield made


def test_links_have_the_path_in_front(client: TestClient) -> None:
    index = client.get("/ml", follow_redirects=True).json()
    links = [index["docs"], index["openapi"], index["models"], *index["health"]]
    for link in links:
        assert link.startswith("/ml/")
        assert client.get(link).status_code == 200, link
    assert index["predict"][0] == "/ml/predict"
    document = client.get("/ml/openapi.json").json()
    assert document["servers"] == [{"url": "/ml"}]
    assert "/predict" in document["paths"]


def test_the_pages_find_their_files(client: TestClient) -> None:
    for page in ("/ml/", "/ml/docs"):
        html = client.get(page, headers={"accept": "text/html"}).text
        links = re.findall(r'(?:src|href)="([^"#]+)"', html)
        assert len(links) > 3
        for link in links:
            found = client.get(str(httpx.URL(f"http://testserver{page}").join(link)))
            assert found.status_code == 200, link
    headers = client.get("/ml/docs").headers
    assert "content-security-policy" in headers
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.slow
def test_a_browser_sends_what_the_page_describes(models: Path, visit: Callable[..., Any]) -> None:
    app = FastAPI()
    app.mount("/ml", foldserve.app(models))
    with under_uvicorn(app) as url:
        page = visit(f"{url}/ml/docs")
        operation = page.locator("#predict")
        operation.locator("> summary").click()
        operation.get_by_role("button", name="Send").click()
        operation.get_by_role("status").get_by_text("200 OK").wait_for()
        page = visit(f"{url}/ml/")
        page.locator("#facts").get_by_text("(batch, 4)").first.wait_for()


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/ml/nope", 404, "not_found"), ("/ml/models/x/predict", 404, "unknown_model")],
)
def test_errors_are_the_services(client: TestClient, path: str, status: int, code: str) -> None:
    answer = client.post(path, json=X)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    if code == "not_found":
        assert "'/ml/nope'" in answer.json()["message"]


@pytest.mark.parametrize("at", ["/models", "/predict", "/v2", "/a/b/{team}"])
def test_a_path_may_be_called_like_one_of_its_own(models: Path, at: str) -> None:
    app = FastAPI()
    app.mount(at, foldserve.app(models))
    at = at.replace("{team}", "red")
    with TestClient(app) as client:
        assert client.get(f"{at}/models/animals").json()["name"] == "animals"
        assert scores(client.post(f"{at}/models/animals/predict", json=X))
        assert client.get(f"{at}/v2/models/animals").json()["name"] == "animals"
        assert client.get(f"{at}/openapi.json").json()["servers"] == [{"url": at}]


def test_a_root_path_of_the_server_is_in_the_links(models: Path) -> None:
    app = FastAPI()
    app.mount("/ml", foldserve.app(models))
    with under_uvicorn(app, root_path="/behind") as url:
        # A proxy that takes /behind away; uvicorn puts it in front of the path again.
        assert scores(httpx.post(f"{url}/ml/predict", json=X, timeout=60))
        assert httpx.get(f"{url}/ml/").json()["docs"] == "/behind/ml/docs"


def test_two_folders_under_two_paths(models: Path, tmp_path: Path) -> None:
    r.publish(tmp_path / "others", "plants", r.linear(seed=5))
    one, two = foldserve.app(models), foldserve.app(tmp_path / "others")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with one.lifespan(), two.lifespan():
            yield

    app = FastAPI(lifespan=lifespan)
    app.mount("/one", one)
    app.mount("/two", two)
    with TestClient(app) as client:
        np.testing.assert_allclose(
            scores(client.post("/one/predict", json=X)), expected(), rtol=1e-5
        )
        np.testing.assert_allclose(
            scores(client.post("/two/predict", json=X)), expected(5), rtol=1e-5
        )
        assert client.get("/two/models/animals").status_code == 404
        counted = [client.get(f"/{at}/metrics").text for at in ("one", "two")]
        assert 'model="animals"' in counted[0]
        assert 'model="animals"' not in counted[1]


# --- the start and the end ---------------------------------------------------------------


def threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("foldserve-", "owner-animals"))]


def ended() -> bool:
    """Whether all threads end, also those of applications to which no test refers any more."""
    end = time.monotonic() + 10
    while threads() and time.monotonic() < end:
        gc.collect()
        time.sleep(0.01)
    return not threads()


def test_with_the_lifespan_models_are_there_before_the_first_request(models: Path) -> None:
    ml = foldserve.app(models)
    app = FastAPI(lifespan=ml.lifespan)
    app.mount("/ml", ml)
    assert ended()
    for _ in range(2):  # a second time after the end
        with TestClient(app) as client:
            assert "owner-animals/1-0" in threads()
            assert client.get("/ml/health/ready").status_code == 200
        assert ended(), threads()


def test_without_it_they_come_with_the_first_request(models: Path) -> None:
    app = FastAPI()
    app.mount("/ml", foldserve.app(models))
    with TestClient(app) as client:
        assert ended(), "nothing was asked for"
        assert scores(client.post("/ml/predict", json=X))
        assert threads()


def test_it_ends_when_nobody_has_it_any_more(models: Path) -> None:
    def use() -> None:
        app = FastAPI()
        app.mount("/ml", foldserve.app(models))
        with TestClient(app) as client:
            assert scores(client.post("/ml/predict", json=X))

    use()
    assert ended()


def test_many_first_requests_at_a_time_wait_for_one_start(models: Path) -> None:
    assert ended()
    app = FastAPI()
    app.mount("/ml", foldserve.app(models))
    answers: list[httpx.Response] = []
    with under_uvicorn(app) as url:
        asking = [
            threading.Thread(
                target=lambda: answers.append(httpx.post(f"{url}/ml/predict", json=X, timeout=60))
            )
            for _ in range(8)
        ]
        for each in asking:
            each.start()
        for each in asking:
            each.join()
        assert [answer.status_code for answer in answers] == [200] * 8
        assert threads().count("owner-animals/1-0") == 1


def test_a_lifespan_of_ones_own_goes_around(models: Path) -> None:
    said = []
    ml = foldserve.app(models)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        async with ml.lifespan(app):
            said.append("begin")
            yield {"request_id": "mine"}
        said.append("end")

    app = FastAPI(lifespan=lifespan)
    app.mount("/ml", ml)

    @app.middleware("http")
    async def look(request: Request, go_on: Callable[..., Any]) -> Response:
        answer: Response = await go_on(request)
        answer.headers["x-state"] = request.state.request_id
        return answer

    with TestClient(app) as client:
        answer = client.post("/ml/predict", json=X)
        assert scores(answer)
        assert answer.headers["x-state"] == "mine", "the state of the outer one is its own"
    assert said == ["begin", "end"]


def test_a_new_version_is_served_without_a_restart(models: Path) -> None:
    ml = foldserve.app(models, watch_interval_ms=50)
    app = FastAPI(lifespan=ml.lifespan)
    app.mount("/ml", ml)
    with TestClient(app) as client:
        assert client.post("/ml/predict", json=X).json()["model"]["version"] == 1
        r.publish(models, "animals", r.linear(seed=7), 2)
        end = time.monotonic() + 30
        while (answer := client.post("/ml/predict", json=X)).json()["model"]["version"] == 1:
            assert time.monotonic() < end
            time.sleep(0.02)
        np.testing.assert_allclose(scores(answer), expected(7), rtol=1e-5)


def test_a_folder_that_goes_before_the_start_is_told(
    models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    app.mount("/ml", foldserve.app(models))
    models.rename(models.parent / "moved")
    with TestClient(app) as client, caplog.at_level(logging.ERROR, "foldserve"):
        answer = client.post("/ml/predict", json=X)
        assert (answer.status_code, answer.json()["code"]) == (503, "model_unavailable")
        assert str(models) not in answer.text
        assert "does not exist" in caplog.text
        (models.parent / "moved").rename(models)
        assert scores(client.post("/ml/predict", json=X)), "the next request tries again"


def test_a_start_that_fails_leaves_no_thread_behind(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request tries anew: what is left by each would have no bound."""

    def load(registry: Registry) -> None:
        raise DeviceUnavailable("no CUDA")

    monkeypatch.setattr(Registry, "load", load)
    app = FastAPI()
    app.mount("/ml", foldserve.app(models, access_log_every_requests=1))
    with TestClient(app) as client:
        for _ in range(3):
            assert client.post("/ml/predict", json=X).status_code == 503
        writers = [thread for thread in threading.enumerate() if thread.name == "access-log"]
    assert writers == []


PROGRAM = """
import logging
from fastapi import FastAPI
import foldserve
app = FastAPI()
app.mount("/ml", foldserve.app("models"))
"""


@pytest.mark.parametrize("application", ["program:app", "foldserve_alone:ml"])
def test_a_program_ends_by_its_servers_signals_and_logs_nothing_of_its_own(
    models: Path, application: str
) -> None:
    """Started by the first request, or as the whole application of the server."""
    (models.parent / "program.py").write_text(PROGRAM)
    (models.parent / "foldserve_alone.py").write_text(
        "import foldserve\nml = foldserve.app('models')\n"
    )
    command = [sys.executable, "-m", "uvicorn", application, "--port", "0", "--log-level", "info"]
    with subprocess.Popen(
        command, cwd=models.parent, stderr=subprocess.PIPE, text=True,
        env={"PYTHONPATH": str(ROOT), "FOLDSERVE_MODELS": "/nowhere", "FOLDSERVE_NAN_POLICY": "x"},
    ) as server:  # fmt: skip
        assert server.stderr is not None
        said = []
        for line in server.stderr:
            said.append(line)
            if found := re.search(r"running on (http://\S+)", line):
                break
        path = "/ml/predict" if application == "program:app" else "/predict"
        answer = httpx.post(found[1] + path, json=X, timeout=60)
        server.send_signal(signal.SIGTERM)
        _, rest = server.communicate(timeout=30)
    assert scores(answer)
    assert server.returncode in {0, -signal.SIGTERM}, rest
    lines = [*said, *rest.splitlines()]
    assert all(line.startswith("INFO: ") for line in lines if line.strip()), lines


# --- keys --------------------------------------------------------------------------------


async def known(x_team: Annotated[str, Header()] = "") -> None:
    if x_team != SECRET["x-team"]:
        raise HTTPException(403, "who are you?")


def test_dependencies_come_before_a_router(models: Path) -> None:
    """And the lifespan of a router is joined to that of the application."""
    done = []

    async def marked(response: Response, after: BackgroundTasks) -> None:
        response.headers["x-marked"] = "yes"
        after.add_task(done.append, "afterwards")

    app = FastAPI()
    ml = foldserve.app(models)
    app.include_router(ml.router, prefix="/ml", dependencies=[Depends(known), Depends(marked)])
    with TestClient(app) as client:
        assert threads(), "it has started with the application"
        refused = client.post("/ml/predict", json=X)
        assert (refused.status_code, refused.json()) == (403, {"detail": "who are you?"})
        assert client.get("/ml/health/live").status_code == 403
        answer = client.post("/ml/predict", json=X, headers=SECRET)
        np.testing.assert_allclose(scores(answer), expected(), rtol=1e-5)
        assert answer.headers["x-marked"] == "yes"
        assert done == ["afterwards"]
        assert answer.headers["content-length"] == str(len(answer.content))
        v2 = client.get("/ml/v2/models/animals", headers=SECRET)
        assert v2.json()["name"] == "animals"
        index = client.get("/ml/", headers=SECRET).json()
        assert index["docs"] == "/ml/docs"
        assert client.head("/ml/docs", headers=SECRET).status_code == 200
        assert "/ml/{below}" not in client.get("/openapi.json").json()["paths"]
        counted = client.get("/ml/metrics", headers=SECRET).text
        assert 'route="/predict",model="animals",code="200"' in counted
    assert ended()


def test_a_middleware_comes_before_a_mount(models: Path) -> None:
    app = FastAPI()
    app.mount("/ml", foldserve.app(models))

    @app.middleware("http")
    async def guard(request: Request, go_on: Callable[..., Any]) -> Response:
        if request.headers.get("x-team") != SECRET["x-team"]:
            return Response(status_code=403)
        answer: Response = await go_on(request)
        return answer

    with under_uvicorn(app) as url:
        assert httpx.post(f"{url}/ml/predict", json=X, timeout=60).status_code == 403
        assert scores(httpx.post(f"{url}/ml/predict", json=X, headers=SECRET, timeout=60))


def test_its_own_keys_are_read_again(models: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("the-first-of-all-keys\n")
    ml = foldserve.app(models, api_keys_file=keys)
    app = FastAPI(lifespan=ml.lifespan)
    app.mount("/ml", ml)
    with TestClient(app) as client:
        assert client.post("/ml/predict", json=X).status_code == 401
        assert client.get("/ml/health/ready").status_code == 200
        assert client.get("/ml/docs").status_code == 200, "the page asks for the key"
        key = {"x-api-key": "the-first-of-all-keys"}
        assert scores(client.post("/ml/predict", json=X, headers=key))
        keys.write_text("another-one-in-its-place\n")
        end = time.monotonic() + 30
        while client.post("/ml/predict", json=X, headers=key).status_code == 200:
            assert time.monotonic() < end
            time.sleep(0.05)


# --- settings ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max_body_byte": 1}, "max_body_byte is not a setting of the service. Did you mean max"),
        ({"port": 80}, "port is a matter of the server that runs your application: set it there."),
        ({"log_level": "info"}, "log_level is a matter of the server"),
        ({"max_body_bytes": "many"}, "max_body_bytes='many' cannot be used: it must be a whole"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_said_at_once(models: Path, settings: Any, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        foldserve.app(models, **settings)
    assert str(caught.value).startswith(sentence)


def test_a_folder_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(foldserve.CannotStart, match="does not exist"):
        foldserve.app(tmp_path / "nowhere")


def test_settings_hold(models: Path) -> None:
    ml = foldserve.app(models, max_body_bytes=8, metrics="off")
    app = FastAPI(lifespan=ml.lifespan)
    app.mount("/ml", ml)
    with TestClient(app) as client:
        answer = client.post("/ml/predict", json=X)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        assert client.get("/ml/metrics").status_code == 404


def test_a_relative_folder_is_that_of_the_start(
    models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(models.parent)
    ml = foldserve.app("models")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    app = FastAPI(lifespan=ml.lifespan)
    app.mount("/ml", ml)
    with TestClient(app) as client:
        assert scores(client.post("/ml/predict", json=X))
