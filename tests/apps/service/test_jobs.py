"""Jobs over folders: progress, cancel, restart; nothing of the server is named or told."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import httpx
import numpy as np
import pytest
from support.outputs import save
from support.served import served

from defectrt.apps.service import jobs as module
from defectrt.synthesis.job import synthesize

POPEN = subprocess.Popen


@pytest.fixture
def good(tmp_path):
    """A folder of good images."""
    folder = tmp_path / "line of goods"
    for i in range(3):
        grain = np.random.default_rng(i).normal(150, 6, (40, 44)).astype(np.uint8)
        save(folder / f"{i}.png", grain)
    return folder


def files_of(dataset):
    """What a dataset holds that does not say when it was made."""
    return {
        p.relative_to(dataset).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in dataset.rglob("*.png")
    }


def over(client, job, seconds=120):
    """The job when it is over."""
    end = time.monotonic() + seconds
    while (state := client.get(f"/v1/jobs/{job['id']}").json())["status"] in ("waiting", "running"):
        assert time.monotonic() < end, state
        time.sleep(0.1)
    return state


def ended_by(monkeypatch, program):
    """Let a job's process be a program of ours."""

    def popen(words, **options):
        return POPEN([sys.executable, "-c", program, words[-1]], **options)

    monkeypatch.setattr(module.subprocess, "Popen", popen)


@pytest.fixture
def client(fake_engine, good, tmp_path):
    with served(fake_engine[0], images={"line": good}, jobs=tmp_path / "jobs") as (client, _):
        yield client


REFUSED = [
    {"images": "/etc"},
    {"images": "../line"},
    {},
    {"images": "line", "out": "/tmp/x"},
    {"images": "line", "masks": "/etc"},
    {"images": "line", "mask_bank": "/etc"},
    {"images": "line", "like": "/etc"},
    {"images": "line", "within": "/etc"},
    {"images": "line", "golden": "/etc/passwd"},
    {"images": "line", "legal": "/etc/passwd"},
    {"images": "line", "config": "/etc/passwd"},
    {"images": "line", "trust": "0" * 64},
    {"images": "line", "provider": "cuda"},
    {"images": "line", "threads": 1000},
    {"images": "line", "engine": "/etc"},
    {"images": "line", "category": "../../x"},
    {"images": "line", "category": "/tmp/x"},
    {"images": "line", "count": 10**20},
    {"images": "line", "candidates": 1000},
    {"images": "line", "format": "zip"},
    {"images": ["line"]},
    {"images": "line", "name": "x"},
    {"images": "line", "defect": "scratch"},
    {"images": "line", "defect": {"__class__": 1}},
    {"images": "line", "steps": 3},
]


@pytest.mark.parametrize("asked", REFUSED, ids=str)
def test_what_names_a_file_of_the_server_or_is_not_possible_is_refused(client, asked, tmp_path):
    answer = client.post("/v1/jobs", json=asked)
    assert answer.status_code in (400, 422), answer.text
    assert str(tmp_path) not in answer.text
    assert client.get("/v1/jobs").json() == []
    assert list((tmp_path / "jobs").iterdir()) == []


@pytest.mark.parametrize(
    "identity", ["%2e%2e", "..%2fline", "0" * 16, "0" * 5000, "%00", "ask.json"]
)
def test_a_job_that_there_is_not(client, identity):
    for answer in (
        client.get(f"/v1/jobs/{identity}"),
        client.delete(f"/v1/jobs/{identity}"),
        client.get(f"/v1/jobs/{identity}/events"),
    ):
        assert answer.status_code in (404, 405)


def test_progress_comes_as_events_and_paths_stay_here(client, monkeypatch, tmp_path, good):
    program = f"""
import json, sys, time
for done in range(3):
    print(json.dumps({{"asked": 3, "done": done, "kept": done}}), flush=True)
    time.sleep(0.7)
print(json.dumps({{"message": "{good}/0.png: damaged; /usr/lib/x.py"}}), flush=True)
print("traceback of {good}", file=sys.stderr)
sys.exit(7)
"""
    ended_by(monkeypatch, program)
    job = client.post("/v1/jobs", json={"images": "line", "count": 1}).json()
    assert (job["asked"], job["images"], job["options"]) == (3, "line", {"count": 1})
    with client.stream("GET", f"/v1/jobs/{job['id']}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = list(stream.iter_lines())
    told = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    assert told[-1]["status"] == "partly done"
    assert told[-1]["message"] == "0.png: damaged; x.py"
    done = [event["done"] for event in told]
    assert done == sorted(done)
    assert len(set(done)) == 3
    assert client.get("/v1/jobs").json() == [told[-1]]
    assert str(tmp_path) not in json.dumps(told)


def test_a_process_that_ends_unexpectedly_is_a_failed_job(client, monkeypatch):
    ended_by(monkeypatch, "import os; os.kill(os.getpid(), 9)")
    state = over(client, client.post("/v1/jobs", json={"images": "line"}).json())
    assert state["status"] == "failed"
    assert "its process ended" in state["message"]


WAITS = "import time; time.sleep(60)"


def test_jobs_wait_for_each_other_and_are_cancelled(client, monkeypatch):
    ended_by(monkeypatch, WAITS)
    one, two = (client.post("/v1/jobs", json={"images": "line"}).json() for _ in range(2))
    assert client.delete(f"/v1/jobs/{two['id']}").json()["status"] == "cancelled"
    client.delete(f"/v1/jobs/{one['id']}")
    assert over(client, one)["status"] == "cancelled"
    assert [job["id"] for job in client.get("/v1/jobs").json()] == [one["id"], two["id"]]


def test_only_so_many_jobs_wait(client, monkeypatch):
    ended_by(monkeypatch, WAITS)
    monkeypatch.setattr(module, "_MOST", 2)
    answers = [client.post("/v1/jobs", json={"images": "line"}) for _ in range(5)]
    assert answers[-1].status_code == 429
    assert 2 <= sum(answer.status_code == 202 for answer in answers) <= 3
    for job in client.get("/v1/jobs").json():
        client.delete(f"/v1/jobs/{job['id']}")


def test_a_job_under_way_goes_on_at_the_next_start(fake_engine, good, tmp_path, monkeypatch):
    options = {"images": {"line": good}, "jobs": tmp_path / "jobs"}
    ended_by(monkeypatch, WAITS)
    with served(fake_engine[0], **options) as (client, _):
        job = client.post("/v1/jobs", json={"images": "line"}).json()
    ended_by(monkeypatch, 'import json; print(json.dumps({"asked": 3, "done": 3, "kept": 3}))')
    with served(fake_engine[0], **options) as (client, _):
        state = over(client, job)
    assert (state["status"], state["kept"], state["message"]) == ("done", 3, "")


def test_foreign_and_damaged_content_of_the_folder(fake_engine, good, tmp_path):
    folder = tmp_path / "jobs"
    (folder / "notes").mkdir(parents=True)
    (folder / "notes" / "ask.json").write_text("{}")
    (folder / "a file").write_text("x")
    for i, text in enumerate(("{}", "no JSON", "[" * 100_000)):
        place = folder / f"{i:016x}"
        place.mkdir()
        (place / "ask.json").write_text(text)
        (place / "end.json").write_text('{"status": "done", "message": ""}')
    with served(fake_engine[0], images={"line": good}, jobs=folder) as (client, _):
        assert [job["status"] for job in client.get("/v1/jobs").json()] == ["failed"] * 3


def test_without_a_folder_there_are_no_jobs(fake_engine):
    with served(fake_engine[0]) as (client, _):
        assert client.get("/v1/jobs").status_code == 404
        assert client.post("/v1/jobs", json={"images": "line"}).status_code == 404


class Program:
    """`defectrt serve` as a process of its own."""

    def __init__(self, engine, good, jobs, *words):
        words = ["--engine", engine, "--images", f"line={good}", "--jobs", jobs, *words]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "defectrt", "serve", "--port", "0", *map(str, words)],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        url = self.process.stderr.readline().rpartition(" ")[2].strip()
        self.client = httpx.Client(base_url=url, timeout=120, trust_env=False)

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        rest = self.process.stderr.read()
        return self.process.wait(120), rest

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stderr.close()


@pytest.mark.slow
def test_a_job_through_stops_and_kills_ends_with_the_command_lines_files(engine, good, tmp_path):
    asked = {"images": "line", "count": 30, "seed": 3, "format": "coco", "category": "tile"}
    with Program(engine, good, tmp_path / "jobs") as program:
        job = program.client.post("/v1/jobs", json=asked).json()
        while program.client.get(f"/v1/jobs/{job['id']}").json()["done"] < 2:
            time.sleep(0.05)
        code, told = program.stop()
        assert (code, told) == (0, "")
    with Program(engine, good, tmp_path / "jobs") as program:
        state = program.client.get(f"/v1/jobs/{job['id']}").json()
        assert state["status"] in ("waiting", "running")
        program.process.kill()
    with Program(engine, good, tmp_path / "jobs") as program:
        state = over(program.client, job)
    assert state["status"] == "done", state
    assert state["done"] == 90
    plain = tmp_path / "plain"
    options = {"count": 30, "seed": 3, "formats": ("coco",), "category": "tile"}
    synthesize(good, plain, engine=engine, quiet=True, **options)
    made = tmp_path / "jobs" / job["id"] / "dataset"
    assert files_of(made) == files_of(plain) != {}
    coco = "coco/annotations.json"
    found = [p.relative_to(plain) for p in (plain / "coco").rglob("*.json")]
    assert found, coco
    for path in found:
        assert (made / path).read_bytes() == (plain / path).read_bytes()


@pytest.mark.slow
def test_sigterm_finishes_what_was_taken_in(engine, good, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    image = (good / "0.png").read_bytes()
    with Program(engine, good, tmp_path / "jobs") as program, ThreadPoolExecutor(8) as pool:

        def ask(number):
            return program.client.post(
                "/v1/synthesize", files={"image": ("0.png", image)}, data={"number": number}
            )

        assert ask(0).status_code in (200, 422)
        answers = [pool.submit(ask, i) for i in range(8)]
        while "defectrt_waiting 0.0" in program.client.get("/metrics").text:
            time.sleep(0.02)
        waiting = program.client.get("/metrics").text
        code, told = program.stop()
        statuses = [answer.result().status_code for answer in answers]
    assert "defectrt_waiting" in waiting
    assert (code, told) == (0, "")
    assert set(statuses) <= {200, 422, 503}
    assert 200 in statuses
