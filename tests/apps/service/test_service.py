"""The service: the command line's bytes over HTTP, shared batches, limits, and ends."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from email import message_from_bytes

import numpy as np
import pytest
from support.fake_engine import FakeEngine
from support.served import decoded, encoded, mask_png, png, served

from defectrt.errors import EngineError

SHORT = {"seed": "7", "defect": "spot"}


class Slow(FakeEngine):
    """Computes only while the gate is open."""

    def __init__(self):
        super().__init__()
        self.gate, self.steps, self.begun = threading.Event(), 0, threading.Event()

    def step(self, rows):
        self.begun.set()
        self.gate.wait(30)
        self.steps += 1
        return super().step(rows)


@pytest.fixture
def slow(opened_as, fake_engine):
    engine = opened_as(Slow())
    yield fake_engine[0], engine
    engine.gate.set()


def ask(client, image=None, mask=True, headers=None, **values):
    files = {"image": ("a.png", image or png())}
    if mask:
        files["mask"] = ("mask.png", mask_png())
    return client.post("/v1/synthesize", files=files, data=SHORT | values, headers=headers)


def error_of(answer):
    return answer.status_code, answer.json()["error"]["code"]


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def client(fake_engine):
    with served(fake_engine[0]) as (client, _):
        yield client


def test_the_same_picture_engine_and_seed_give_the_bytes_of_the_command_line(
    parts, go, fake_engine
):
    images, masks = parts
    options = {"seed": 7, "defect": "spot", "count": 2, "strength": "0.4,0.6"}
    out, summary = go(**options)
    assert summary.kept == 6
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    with served(fake_engine[0]) as (client, _):
        for line in lines:
            image = images / line["source"]
            files = {
                "image": (image.name, image.read_bytes()),
                "mask": (masks / f"{image.stem}_mask.png").read_bytes(),
            }
            values = {"seed": 7, "defect": "spot", "strength": "0.4,0.6", "number": line["sample"]}
            answer = client.post("/v1/synthesize", files=files, data=values)
            assert answer.status_code == 200, answer.text
            given = answer.json()
            assert base64.b64decode(given["image"]) == (out / line["image"]).read_bytes()
            assert base64.b64decode(given["label"]) == (out / line["mask"]).read_bytes()
            assert given["record"]["seed"] == line["seed"]


def test_forms_json_and_all_answers_say_the_same(client):
    form = ask(client)
    values = {key: base64.b64encode(data).decode() for key, data in
              (("image", png()), ("mask", mask_png()))}  # fmt: skip
    plain = client.post("/v1/synthesize", json=values | SHORT | {"name": "a.png", "number": 0})
    assert form.json() == plain.json()
    image, label = (base64.b64decode(form.json()[key]) for key in ("image", "label"))
    assert ask(client, headers={"accept": "image/png"}).content == image
    parts = ask(client, headers={"accept": "multipart/form-data"})
    head = f"Content-Type: {parts.headers['content-type']}\r\n\r\n".encode()
    found = {
        part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
        for part in message_from_bytes(head + parts.content).get_payload()
    }
    assert (found["image"], found["label"]) == (image, label)
    assert json.loads(found["record"]) == form.json()["record"]
    assert decoded(label).any()


def test_a_mask_is_drawn_where_none_is_given(client):
    assert decoded(base64.b64decode(ask(client, mask=False).json()["label"])).any()


def test_rows_of_two_clients_share_batches(slow):
    directory, engine = slow
    with served(directory) as (client, service), ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(ask, client, png(seed=i)) for i in range(4)]
        wait_for(lambda: service.lines["default"].waiting == 4 and engine.begun.is_set())
        engine.gate.set()
        shared = [answer.result().json() for answer in answers]
        rows = service.lines["default"].rows
        assert len(engine.batches) < rows / 2
        alone = [ask(client, png(seed=i)).json() for i in range(4)]
    assert shared == alone


HOSTILE = {
    "no image": (b"hello", {}, 422),
    "nothing": (b"", {}, 422),
    "a truncated one": (png()[:200], {}, 422),
    "an unknown option": (None, {"colour": "red"}, 400),
    "a path as an option": (None, {"within": "/etc"}, 400),
    "masks of the server": (None, {"masks": "/etc"}, 400),
    "like": (None, {"like": "/etc"}, 400),
    "golden": (None, {"golden": "/etc/passwd"}, 400),
    "trust": (None, {"trust": "0" * 64}, 400),
    "out": (None, {"out": "/tmp/x"}, 400),
    "config": (None, {"config": "/etc/passwd"}, 400),
    "count": (None, {"count": "1000000"}, 400),
    "a shape that is a path": (None, {"shape": "/etc/passwd"}, 400),
    "another engine": (None, {"engine": "/etc"}, 400),
    "steps that there are not": (None, {"steps": "3"}, 400),
    "a type that there is not": (None, {"defect": "scratch"}, 400),
    "tries without end": (None, {"candidates": "1000000000"}, 400),
    "a border without end": (None, {"grow": "1e300"}, 400),
    "no number": (None, {"grow": "nan"}, 400),
    "a number of 5000 digits": (None, {"seed": "9" * 5000}, 400),
    "a negative number": (None, {"number": "-1"}, 400),
    "a number that is none": (None, {"number": "٣٣x"}, 400),
    "a long name": (None, {"name": "x" * 2000}, 400),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_input_is_refused_without_a_path(client, case, tmp_path):
    image, values, status = HOSTILE[case]
    answer = client.post(
        "/v1/synthesize", files={"image": png() if image is None else image}, data=values
    )
    assert answer.status_code == status, answer.text
    text = answer.json()["error"]["message"]
    assert str(tmp_path) not in text
    assert "/tmp" not in text.replace("/tmp/x", "")


def test_hostile_input_beside_a_good_one_costs_nothing(slow):
    directory, engine = slow
    with served(directory) as (client, service), ThreadPoolExecutor(8) as pool:
        good = pool.submit(ask, client)
        bad = [pool.submit(ask, client, b"\x89PNG\r\n\x1a\n" + b"\0" * i) for i in range(4)]
        bad.append(pool.submit(ask, client, candidates="10000"))
        assert [answer.result().status_code for answer in bad] == [422] * 4 + [400]
        engine.gate.set()
        assert good.result().json() == ask(client).json()
        assert service.is_open


def test_an_engines_error_is_told_in_the_log_alone(client, monkeypatch, caplog):
    def fail(self, rows):
        raise EngineError("/srv/engine/denoiser.onnx: out of memory")

    with monkeypatch.context() as broken:
        broken.setattr(FakeEngine, "step", fail)
        answer = ask(client)
    assert error_of(answer) == (500, "engine")
    assert "denoiser" not in answer.text
    assert "denoiser" in caplog.text
    assert ask(client).status_code == 200


def test_what_nobody_expected_is_an_answer_too(client, monkeypatch):
    def fail(self, rows):
        raise ZeroDivisionError("/srv/x.py")

    with monkeypatch.context() as broken:
        broken.setattr(FakeEngine, "encode", fail)
        answer = ask(client)
    assert error_of(answer) == (500, "error")
    assert "x.py" not in answer.text
    assert ask(client).status_code == 200


def test_json_that_is_none_is_refused(client):
    def post(body, kind="application/json"):
        headers = {"content-type": kind}
        return client.post("/v1/synthesize", content=body, headers=headers).status_code

    assert post(b"{") == 422
    assert post(b"[" * 200_000) == 422
    assert post(b"[" * 900 + b"]" * 900) == 422
    assert post(b'{"image": [' + b"1," * 5000 + b"1]}") == 422
    assert post(b'{"image": "\xff"}') == 422
    assert post(b'{"name": "\\ud800", "image": ""}') == 422
    assert post(b'{"image": "%%%"}') == 422
    assert post(b'{"image": 5}') == 422
    assert post(b"x", "text/plain") == 415
    assert post(b"x", "multipart/form-data; boundary=x; charset=idna") == 415
    assert post(b"x", "multipart/form-data") == 400
    assert post(b"--x\r\nx", "multipart/form-data; boundary=x") in (400, 422)


def test_a_form_may_not_say_things_twice(client):
    twice = client.post("/v1/synthesize", files=[("image", png()), ("image", png())])
    assert error_of(twice) == (400, "options")
    many = client.post("/v1/synthesize", files=[(f"f{i}", b"x") for i in range(3)])
    assert many.status_code == 400
    fields = client.post("/v1/synthesize", data={f"f{i}": "x" for i in range(70)},
                         files={"image": png()})  # fmt: skip
    assert fields.status_code == 400


def test_a_full_queue_answers_429_with_retry_after(slow):
    directory, engine = slow
    with served(directory, queue=2) as (client, service), ThreadPoolExecutor(2) as pool:
        taken = [pool.submit(ask, client, png(seed=i)) for i in range(2)]
        wait_for(lambda: service.lines["default"].waiting == 2)
        answer = ask(client)
        assert error_of(answer) == (429, "busy")
        assert int(answer.headers["retry-after"]) >= 1
        engine.gate.set()
        assert [answer.result().status_code for answer in taken] == [200, 200]
        assert ask(client).status_code == 200


def test_a_large_body_is_refused_before_it_is_read(fake_engine):
    with served(fake_engine[0], max_bytes=20_000) as (client, _):
        assert error_of(ask(client, b"x" * 20_000)) == (413, "too_large")
        assert ask(client).status_code == 200

        def endless():
            for _ in range(100):
                yield b"x" * 1000

        headers = {"content-type": "application/json"}
        answer = client.post("/v1/synthesize", content=endless(), headers=headers)
        assert error_of(answer) == (413, "too_large")
        assert ask(client).status_code == 200


def test_pixels_are_counted_before_anything_is_decoded(fake_engine, monkeypatch):
    from defectrt.apps.service import asking

    def decode(workpiece):
        raise AssertionError("decoded")

    with served(fake_engine[0], max_pixels=50 * 60) as (client, service):
        assert ask(client).status_code == 200
        monkeypatch.setattr(asking, "Checked", decode)
        answer = ask(client, png((51, 60)))
        assert error_of(answer) == (413, "too_large")
        assert "60x51" in answer.json()["error"]["message"]
        with service.room.hold(4 * 50 * 60):
            assert error_of(ask(client)) == (429, "busy")


def test_a_sample_that_takes_too_long_is_given_up_and_its_rows_are_freed(slow):
    directory, engine = slow
    with served(directory, timeout=0.5) as (client, service):
        answer = ask(client)
        assert error_of(answer) == (504, "timeout")
        assert engine.steps == 0
        engine.gate.set()
        line = service.lines["default"]
        wait_for(lambda: line.waiting == 0)
        assert engine.steps == 1
        assert 'defectrt_samples_total{end="given up"} 1.0' in client.get("/metrics").text


@contextmanager
def raw(client):
    address = client.base_url.host, client.base_url.port
    with socket.create_connection(address, timeout=20) as connection:
        yield connection


def request_of(client):
    """A sample as the bytes on the wire."""
    body = client.build_request(
        "POST", "/v1/synthesize", files={"image": png(), "mask": mask_png()}, data=SHORT
    )
    head = "".join(f"{name}: {value}\r\n" for name, value in body.headers.items())
    return f"POST /v1/synthesize HTTP/1.1\r\n{head}\r\n".encode() + body.read()


def test_a_client_that_goes_away_frees_its_rows(slow):
    directory, engine = slow
    with served(directory) as (client, service):
        line = service.lines["default"]
        with raw(client) as connection:
            connection.sendall(request_of(client))
            assert engine.begun.wait(20)
        wait_for(lambda: 'end="given up"} 1.0' in client.get("/metrics").text)
        engine.gate.set()
        wait_for(lambda: line.waiting == 0)
        assert engine.steps == 1
        assert ask(client).status_code == 200


def test_a_client_that_goes_away_within_a_body_leaves_no_noise(client, caplog):
    with raw(client) as connection:
        connection.sendall(request_of(client)[:-100])
    wait_for(lambda: 'status="499"} 1.0' in client.get("/metrics").text)
    assert caplog.text == ""


def test_a_sample_that_only_waits_leaves_at_once(slow):
    directory, engine = slow
    with served(directory, queue=50) as (client, service), ThreadPoolExecutor(30) as pool:
        line = service.lines["default"]
        stay = [pool.submit(ask, client, png(seed=i)) for i in range(20)]
        wait_for(lambda: line.waiting == 20)
        with raw(client) as connection:
            connection.sendall(request_of(client))
            wait_for(lambda: line.waiting == 21)
        wait_for(lambda: line.waiting == 20)
        assert engine.steps == 0
        engine.gate.set()
        assert {answer.result().status_code for answer in stay} == {200}


def test_the_end_finishes_what_was_taken_in(slow):
    directory, engine = slow
    with ThreadPoolExecutor(3) as pool:
        with served(directory) as (client, service):
            answers = [pool.submit(ask, client, png(seed=i)) for i in range(3)]
            wait_for(lambda: service.lines["default"].waiting == 3)
            threading.Timer(0.5, engine.gate.set).start()
        assert [answer.result().status_code for answer in answers] == [200] * 3


def test_state_for_those_who_watch(slow):
    directory, engine = slow
    with served(directory, timeout=0.2) as (client, service), ThreadPoolExecutor(1) as pool:
        assert client.get("/healthz").json() == {"status": "alive"}
        assert client.head("/readyz").status_code == 200
        (engine_of,) = client.get("/v1/engines").json()
        assert (engine_of["name"], engine_of["defect_types"]) == ("default", ["spot"])
        assert pool.submit(ask, client).result().status_code == 504
        wait_for(lambda: client.get("/healthz").status_code == 503)
        engine.gate.set()
        wait_for(lambda: client.get("/healthz").status_code == 200)
        text = client.get("/metrics").text
        assert 'defectrt_requests_total{path="/v1/synthesize",status="504"} 1.0' in text
        service.lines["default"]._closing = True
        assert client.get("/readyz").status_code == 503
        assert error_of(ask(client)) == (503, "stopping")


def test_the_api_is_described_and_read_offline(client):
    described = client.get("/openapi.json").json()
    assert {"/v1/synthesize", "/v1/engines", "/v1/jobs", "/healthz", "/metrics"} <= set(
        described["paths"]
    )
    page = client.get("/docs").text
    assert "https://" not in page
    assert client.get("/static-offline-docs/swagger-ui.css").status_code == 200


def test_methods_that_there_are_not(client):
    answer = client.put("/v1/synthesize")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert client.options("/v1/engines").status_code == 405
    assert client.get("/nothing").json()["error"]["message"] == "Not Found"


def test_sixteen_bits_stay_sixteen_bits(client):
    deep = np.random.default_rng(0).integers(30_000, 36_000, (50, 60)).astype(np.uint16)
    answer = ask(client, encoded(deep), headers={"accept": "image/png"})
    made = decoded(answer.content)
    assert np.array_equal(made[:8], deep[:8])
    assert not np.array_equal(made, deep)
