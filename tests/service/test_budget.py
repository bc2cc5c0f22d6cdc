"""One account of memory: what fits, what is refused, what is kept for small requests."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from repository import elementwise, publish

from service import device
from service.budget import SMALL_BYTES, Account, Budget
from service.codecs import json_, tfs, v2
from service.errors import InvalidBody, TooManyBytes
from service.exchange import Exchange
from service.models.model import load
from service.protocols.call import Call, How, Reader
from service.settings import MiB
from service.settings_read import parse
from service.signature import size_of

LIMIT = 16 * SMALL_BYTES


def test_large_requests_leave_an_eighth_to_small_ones():
    budget = Budget(LIMIT)
    large = [Exchange(str(i), budget) for i in range(8)]
    for each in large[:7]:
        each.hold(2 * SMALL_BYTES)
    with pytest.raises(TooManyBytes) as caught:
        large[7].hold(2 * SMALL_BYTES)
    assert caught.value.retry_after_s == 1
    small = [Exchange(str(i), budget) for i in range(3)]
    small[0].hold(SMALL_BYTES)
    small[1].hold(SMALL_BYTES)
    with pytest.raises(TooManyBytes):
        small[2].hold(1)
    assert budget.held == LIMIT
    for each in (*large, *small):
        each.release()
    assert budget.held == 0


def test_a_request_that_grows_is_not_small_for_ever():
    """A body in chunks takes its bytes in small pieces."""
    budget = Budget(LIMIT)
    first, second = Exchange("a", budget), Exchange("b", budget)
    first.hold(13 * SMALL_BYTES)
    second.hold(SMALL_BYTES // 2)
    second.hold(SMALL_BYTES // 2)
    with pytest.raises(TooManyBytes):
        second.hold(SMALL_BYTES // 2)
    assert second.body_bytes == SMALL_BYTES
    first.release()
    second.release()
    assert budget.held == 0


def test_an_account_says_what_it_holds_and_keeps_that_when_there_is_no_more():
    budget = Budget(LIMIT)
    account, other = Account(budget), Account(budget)
    account.take(100)
    account.take(300)
    other.take(LIMIT // 2)
    assert (account.held, budget.held) == (300, LIMIT // 2 + 300)
    with pytest.raises(TooManyBytes):
        account.take(LIMIT // 2)
    assert (account.held, budget.held) == (300, LIMIT // 2 + 300)
    account.owe(LIMIT)  # what is there already is counted, whatever room there is
    assert budget.held == LIMIT + LIMIT // 2
    account.owe(0)
    other.take(0)
    assert budget.held == 0
    free = Account(None)
    free.take(LIMIT)
    assert free.held == 0


def test_the_default_fits_the_largest_request():
    settings = parse((), {})
    assert settings.max_in_flight_bytes is None
    turned = 8 * settings.max_image_pixels + settings.max_body_bytes
    budget = Budget(settings.budget_bytes)
    lone, picture = Exchange("a", budget), Exchange("b", budget)
    lone.hold(1)
    picture.hold(turned - 1)
    with pytest.raises(TooManyBytes):
        picture.hold(budget.limit // 8)
    assert parse(("--max-image-pixels", "1000000"), {}).budget_bytes == 256 * MiB
    assert parse(("--max-in-flight-bytes", "1000"), {}).budget_bytes == 1000
    with_grpc = parse(("--grpc-port", "0"), {}).budget_bytes
    assert with_grpc * 3 // 4 in range(settings.budget_bytes - 2, settings.budget_bytes + 2)
    more = parse(("--max-body-bytes", str(1024 * MiB)), {})
    assert more.budget_bytes > 1024 * MiB


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    """Whole numbers of any two sizes, so that JSON of them is read as objects."""
    root: Path = tmp_path_factory.mktemp("models")
    folder = publish(root, "m", elementwise("Neg", TensorProto.INT64, ("rows", "n")))
    made = load(folder, "m", 1, choice=device.choose("cpu"), threads=1, capacity_samples=8)
    yield made
    assert made.batcher.close(60)


NUMBERS = [[7] * 200_000]
V2 = {"name": "x", "shape": [1, 200_000], "datatype": "INT64", "data": NUMBERS}
TEXTS = {
    "json": (json_.decode, {"inputs": NUMBERS}),
    "v2": (lambda *of: v2.decode(of[0], None, *of[1:]), {"inputs": [V2]}),
    "tfs": (tfs.decode, {"instances": NUMBERS}),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_what_json_becomes_is_counted_before_it_is_read(model, kind: str):
    decode, document = TEXTS[kind]
    body = json.dumps(document).encode()
    told: list[int] = []
    decode(body, model.signature, told.append)
    # At least a pointer for each, and the text itself; at most what the largest values take.
    assert len(told) == 1
    assert len(body) + 8 * 200_000 <= told[0] <= len(body) + 64 * 200_001 + 80 * 10

    def refuse(size: int) -> None:
        raise TooManyBytes("no room", retry_after_s=1)

    with pytest.raises(TooManyBytes):
        decode(body[:-1], model.signature, refuse)  # cut off, had it been read


def test_a_body_of_very_many_lists_is_no_tensor(model):
    body = b'{"inputs": [' + b"[]," * 1_000_001 + b"[]]}"
    for decode in (json_.decode, tfs.decode):
        with pytest.raises(InvalidBody, match="more than 1000000 lists"):
            decode(body, model.signature)
    with pytest.raises(InvalidBody, match="more than 1000000 lists"):
        v2.decode(body, None, model.signature)


def test_tensors_take_the_place_of_their_body(model):
    budget = Budget(256 * MiB)
    body = json.dumps({"inputs": NUMBERS}, separators=(",", ":")).encode()
    tensor_bytes = 8 * 200_000
    assert tensor_bytes > len(body)
    with ThreadPoolExecutor(1) as pool:
        exchange = Exchange("a", budget)
        call = Call(pool, exchange, Reader(lambda b, m, c: (read(b, m, c), How(write))))
        call.admit(model, 60.0)
        exchange.hold(len(body))
        call.body, call.deadline = body, float("inf")
        assert call.decode() == 1
        assert budget.held == tensor_bytes
        exchange.release()
        assert budget.held == 0
    few = {"x": np.zeros((1, 4), np.int64)}
    assert size_of(few) == 32
    texts = {"x": np.array([["a", "b"]], object)}
    assert size_of(texts) > 2 * 50


def read(body, model, charge):
    return json_.decode(body, model.signature, charge)


def write(*_):
    raise AssertionError
