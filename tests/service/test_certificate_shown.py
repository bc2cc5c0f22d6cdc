"""What a user of the service sees of a certificate: in JSON, in V2 metadata and on the page."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import openapi_spec_validator
import pytest
import repository
from browsing import CONTRAST
from playwright.sync_api import Page, expect

from service.certificate import OF_OTHER_FILES, Certificate, read
from service.manifest import Manifest

if TYPE_CHECKING:
    from conftest import Served

A, B, C = ("1" * 64, "2" * 64, "3" * 64)
SENTENCE = (
    "Certified for every input: 2 of 3 batch-norms; 27 weights, none moved by more than 1.08 "
    "roundings."
)
NOT = (
    "Not certified: 'y', a Conv, has no equal in the original: a weight is 1.00000012 where 1 was "
    "expected in channel 7."
)  # fmt: skip
CERTIFIED: dict[str, Any] = {
    "certified": True,
    "verdict": "Proven: folded equals original.",
    "sentence": SENTENCE,
    "batchnorms": {"folded": 2, "kept": 1},
    "figures": {
        "weights": 27, "largest_move": 1.0812, "roundings": 3.0,
        "sizes": [{"batch": 2}, {"batch": 3}],
    },
    "where": None,
    "original": {"graph": A, "files": {"net.pt": A}},
    "folded": {"graph": B, "files": {}},
    "checker": C,
}  # fmt: skip
NOT_CERTIFIED: dict[str, Any] = {
    **CERTIFIED,
    "certified": False,
    "verdict": "Proven by the measurement alone: folded equals original.",
    "sentence": NOT,
    "figures": None,
    "where": {"value": "y", "op": "Conv", "channel": 7, "expected": 1.0, "found": 1.00000012},
}


def of(content: bytes, certificate: dict[str, Any]) -> dict[str, Any]:
    """The same, of a file with this content."""
    files = {"model.onnx": hashlib.sha256(content).hexdigest()}
    return {**certificate, "folded": {"graph": B, "files": files}}


def publish(root: Path, name: str, certificate: Any, version: int = 1) -> None:
    model = repository.linear()
    content = model.SerializeToString()
    if isinstance(certificate, dict) and "folded" in certificate:
        certificate = of(content, certificate)
    x = np.ones((1, 4), np.float32)
    told = {} if certificate is None else {"provenance": {"certificate": certificate}}
    repository.publish(root, name, model, version, test={"x": x}, **told)


# What may lie in model.json, and what the service then says: certified, not, or nothing.
CASES: dict[str, tuple[Any, bool | None]] = {
    "certified": (CERTIFIED, True),
    "not-certified": (NOT_CERTIFIED, False),
    "without": (None, None),
    "damaged": ({"certified": "perhaps"}, None),
    "text": ("yes", None),
    "newer": ({**CERTIFIED, "theorem": {"name": "a new one"}}, True),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("certified")
    for name, (certificate, _) in CASES.items():
        publish(root, name, certificate)
    publish(root, "swapped", CERTIFIED)
    path = root / "swapped" / "1"
    repository.seal(path)  # as it is, then for another graph
    manifest = json.loads((path / "model.json").read_text())
    manifest["provenance"] = {"certificate": of(b"another graph", CERTIFIED)}
    (path / "model.json").write_text(json.dumps(manifest))
    publish(root, "two", NOT_CERTIFIED, 1)
    publish(root, "two", CERTIFIED, 2)
    return root


@pytest.fixture(scope="module")
def told(start: Callable[..., Served], models: Path) -> Iterator[httpx.Client]:
    with start(models, "--version-policy", "all").client() as client:
        yield client


@pytest.mark.parametrize(("name", "certified"), [(n, c) for n, (_, c) in CASES.items()])
def test_a_model_tells_its_certificate(told: httpx.Client, name: str, certified: bool | None):
    rows = {row["name"]: row for row in told.get("/models").json()["models"]}
    one = told.get(f"/models/{name}").json()
    assert rows[name]["certified"] is one["certified"] is certified
    if certified is None:
        assert one["certificate"] is None
        return
    shown = one["certificate"]
    content = repository.linear().SerializeToString()
    expected = of(content, CERTIFIED if certified else NOT_CERTIFIED)
    assert shown == expected
    assert shown["folded"]["files"]["model.onnx"] == hashlib.sha256(content).hexdigest()


def test_every_one_of_them_is_served(told: httpx.Client):
    """It is told, not believed: whatever it says, the version answers."""
    for row in told.get("/models").json()["models"]:
        assert row["state"] == "serving"
        answer = told.post(f"/models/{row['name']}/predict", json={"inputs": [[1, 2, 3, 4]]})
        assert answer.status_code == 200, row


def test_a_certificate_of_other_files_is_none(told: httpx.Client):
    one = told.get("/models/swapped").json()
    assert (one["certified"], one["certificate"]["sentence"]) == (False, OF_OTHER_FILES)
    assert one["certificate"]["figures"] is None


def test_each_version_tells_its_own(told: httpx.Client):
    newest = told.get("/models/two").json()
    assert (newest["version"], newest["certified"]) == (2, True)
    for version, certified in ((1, False), (2, True)):
        one = told.get(f"/models/two/versions/{version}").json()
        assert (one["name"], one["version"]) == ("two", version)
        assert one["certificate"]["certified"] is certified
    for path, code in (
        ("/models/two/versions/3", "unknown_version"),
        ("/models/two/versions/x", "unknown_version"),
        ("/models/none/versions/1", "unknown_model"),
    ):
        answer = told.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, code)


def test_the_document_describes_it(told: httpx.Client):
    document = told.get("/openapi.json").json()
    openapi_spec_validator.validate(document)
    schemas = document["components"]["schemas"]
    for shape in ("Model", "NamedVersion"):
        (ref, null) = schemas[shape]["properties"]["certificate"]["anyOf"]
        assert (ref, null) == ({"$ref": "#/components/schemas/Certificate"}, {"type": "null"})
    assert {"certified", "sentence"} == set(schemas["Certificate"]["required"])
    assert "certified" in schemas["Row"]["required"]


def test_v2_metadata_has_it_as_a_property(told: httpx.Client):
    assert told.get("/v2/models/certified").json()["properties"] == {"certificate": SENTENCE}
    one = told.get("/v2/models/two/versions/1").json()
    assert one["properties"] == {"certificate": NOT}
    assert "properties" not in told.get("/v2/models/without").json()


def test_over_grpc_too(start: Callable[..., Served], models: Path):
    grpc = pytest.importorskip("grpc")
    from service.protocols import grpc_messages

    classes = grpc_messages.classes()
    served = start(models, "--grpc-port", "0")
    assert served.url
    (address,) = (
        line.split()[1].removeprefix("grpc://")
        for line in served.out.splitlines()
        if line.strip().startswith("grpc ")
    )
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary(
            f"/{grpc_messages.SERVICE}/ModelMetadata",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=classes["ModelMetadataResponse"].FromString,
        )
        for name, properties in (("certified", {"certificate": SENTENCE}), ("without", {})):
            answer = ask(classes["ModelMetadataRequest"](name=name), timeout=60)
            assert dict(answer.properties) == properties
    assert served.stop() == 0


def test_what_was_written_is_read() -> None:
    files = {"model.onnx": A, "model.onnx.data": B}
    found = {**CERTIFIED, "folded": {"graph": B, "files": files}}
    assert read({"certificate": found}, files) == Certificate.model_validate(found)
    assert read({"certificate": found}, {**files, "selftest.npz": C}) is not None
    for change in ({"model.onnx": C}, {"model.onnx.data": C}):
        other = read({"certificate": found}, files | change)
        assert other == Certificate(certified=False, sentence=OF_OTHER_FILES)
    for bad in (None, [], {}, "x", {**found, "certified": None}, {**found, "checker": "short"}):
        assert read({"certificate": bad}, files) is None
    for nothing in ({**found, "folded": None}, {**found, "folded": {"graph": B, "files": {}}}):
        other = read({"certificate": nothing}, files)
        assert other is not None
        assert not other.certified, "a certificate of no file is none"


def test_an_older_service_takes_it(models: Path) -> None:
    """`provenance` is free, so a manifest with a certificate is valid by the format as it was."""
    content = json.loads((models / "certified" / "1" / "model.json").read_text())
    manifest = Manifest.model_validate(content)
    assert manifest.certificate is not None
    assert manifest.certificate.certified
    beside = copy.deepcopy(content)
    beside["certificate"] = beside["provenance"].pop("certificate")
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        Manifest.model_validate(beside)
    assert manifest.model_dump(mode="json")["provenance"] == content["provenance"]


@pytest.mark.slow
def test_the_page_shows_it(visit: Callable[..., Page], told: httpx.Client) -> None:
    page = visit(f"{told.base_url}/")
    place = page.locator("#certificate")
    choice = page.get_by_label("Predict with")
    choice.select_option("certified")
    expect(place.locator("summary")).to_have_text(SENTENCE)
    expect(place.locator("table").first).not_to_be_visible()
    place.locator("summary").click()
    for text in ("for every input", "1.081", "batch = 2; batch = 3", "net.pt", A, C):
        expect(place).to_contain_text(text)
    choice.select_option("not-certified")
    verdict = NOT_CERTIFIED["verdict"]
    expect(place.locator("summary")).to_have_text(f"{NOT} {verdict}")
    place.locator("summary").click()
    for text in ("does not mean that the two differ", "Conv", "1.00000012"):
        expect(place).to_contain_text(text)
    row = place.get_by_role("row").filter(has_text="in channel")
    expect(row).to_contain_text("7")
    choice.select_option("without")
    expect(place).to_be_hidden()
    choice.select_option("swapped")
    expect(place.locator("summary")).to_have_text(OF_OTHER_FILES)


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_on_any_screen(
    visit: Callable[..., Page], told: httpx.Client, width: int, scheme: str
) -> None:
    """Nothing is wider than the window, and text stands out from its ground."""
    screen = {"width": width, "height": 800}
    page = visit(f"{told.base_url}/", viewport=screen, color_scheme=scheme)
    page.get_by_label("Predict with").select_option("not-certified")
    page.locator("#certificate > summary").click()
    expect(page.locator("#certificate .sums")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []
