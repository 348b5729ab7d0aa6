"""Images and datasets in stores: the bytes of a job on the disk, though the store fails."""

from __future__ import annotations

import numpy as np
import pytest
from support.outputs import dataset_of, save

fsspec = pytest.importorskip("fsspec", reason="the extra [stores] is not installed")

from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402

from defectrt.config.job import JobConfig  # noqa: E402
from defectrt.errors import InputError, OutputError, UsageError  # noqa: E402
from defectrt.synthesis import stores  # noqa: E402
from defectrt.synthesis.job import synthesize  # noqa: E402
from defectrt.synthesis.stores import address_of, synthesize_in_store  # noqa: E402


class Failing(MemoryFileSystem):
    """A store that answers 503, or cuts files off, on every third call, or always."""

    store: dict = {}  # noqa: RUF012 - as its base has it
    pseudo_dirs = [""]  # noqa: RUF012
    calls, always = 0, False

    def _fail(self):
        type(self).calls += 1
        if self.always or self.calls % 3 == 0:
            raise OSError("503 Slow Down")

    def put_file(self, lpath, rpath, **options):
        self._fail()
        super().put_file(lpath, rpath, **options)
        if self.calls % 4 == 0:
            self.pipe_file(rpath, self.cat_file(rpath)[:-1])

    def get_file(self, rpath, lpath, **options):
        self._fail()
        super().get_file(rpath, lpath, **options)
        if self.calls % 4 == 0:
            with open(lpath, "r+b") as file:  # noqa: PTH123
                file.truncate(3)


@pytest.fixture
def store(monkeypatch, tmp_path):
    fsspec.register_implementation("memory", Failing, clobber=True)
    monkeypatch.setattr(Failing, "store", {})
    monkeypatch.setattr(Failing, "pseudo_dirs", [""])
    monkeypatch.setattr(stores, "_FIRST_WAIT", 0)
    monkeypatch.setattr(stores, "user_cache_path", lambda name: tmp_path / "cache")
    yield Failing()
    fsspec.register_implementation("memory", MemoryFileSystem, clobber=True)


@pytest.fixture
def good(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(4):
        save(tmp_path / "good" / f"a/{i}.png", rng.integers(140, 170, (48, 40), np.uint8))
    return tmp_path / "good"


def files_in(store, folder):
    return {
        name.removeprefix(f"/{folder}/"): store.cat_file(name) for name in store.find(f"/{folder}")
    }


def test_an_address_is_told_from_a_path(tmp_path):
    config = JobConfig(images="s3://bucket/good", out="s3://bucket/x/made")
    assert address_of(config.images) == "s3://bucket/good"
    assert address_of(config.out) == "s3://bucket/x/made"
    assert address_of(tmp_path) is None
    assert address_of(None) is None


def test_the_bytes_are_those_of_a_job_on_the_disk_though_the_store_fails(
    fake_engine, store, good, tmp_path
):
    for path in good.rglob("*.png"):
        store.pipe_file(f"/good/{path.relative_to(good).as_posix()}", path.read_bytes())
    options = {"engine": fake_engine[0], "format": "coco"}
    config = JobConfig(images="memory://good", out="memory://made", **options)
    assert synthesize_in_store(config, quiet=True).kept == 4
    assert Failing.calls > 10
    synthesize(good, tmp_path / "out", quiet=True, **options).check()
    assert files_in(store, "made") == dataset_of(tmp_path / "out")
    assert synthesize_in_store(config, quiet=True).kept == 4  # the same job again
    assert not any((tmp_path / "cache").rglob("*.png"))
    with pytest.raises(OutputError, match="memory://made: holds another job"):
        synthesize_in_store(config.replace(seed=5), quiet=True)


def test_a_store_that_is_gone_is_named_and_the_same_command_goes_on(
    fake_engine, store, good, monkeypatch
):
    config = JobConfig(images=good, out="memory://made", engine=fake_engine[0])
    monkeypatch.setattr(Failing, "always", True)
    with pytest.raises(OutputError, match=r"memory://made: cannot be written \(503 Slow Down\)"):
        synthesize_in_store(config, quiet=True)
    assert not store.exists("/made/job.json")
    monkeypatch.setattr(Failing, "always", False)
    assert synthesize_in_store(config, quiet=True).made == 0
    assert store.exists("/made/job.json")


def test_what_is_no_place_in_a_store(fake_engine, store):
    with pytest.raises(UsageError, match="give --out"):
        synthesize_in_store(JobConfig(images="memory://good"))
    with pytest.raises(UsageError, match="nowhere://good"):
        synthesize_in_store(JobConfig(images="nowhere://good", out="x"))
    with pytest.raises(InputError, match="memory://good: no images"):
        synthesize_in_store(JobConfig(images="memory://good", out="x", engine=fake_engine[0]))


@pytest.mark.slow
def test_s3_by_a_server_of_moto(fake_engine, good, tmp_path, monkeypatch):
    server = pytest.importorskip("moto.server", reason="moto and s3fs are not installed")
    s3fs = pytest.importorskip("s3fs")
    running = server.ThreadedMotoServer(port=0)
    running.start()
    host, port = running.get_host_and_port()
    for key, value in {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(stores, "user_cache_path", lambda name: tmp_path / "cache")
    try:
        store = s3fs.S3FileSystem()
        store.mkdir("plant")
        store.put(str(good), "plant/good", recursive=True)
        config = JobConfig(images="s3://plant/good", out="s3://plant/made", engine=fake_engine[0])
        synthesize_in_store(config, quiet=True).check()
        store.get("plant/made", str(tmp_path / "back"), recursive=True)
    finally:
        running.stop()
    synthesize(good, tmp_path / "out", quiet=True, engine=fake_engine[0]).check()
    assert dataset_of(tmp_path / "back") == dataset_of(tmp_path / "out")
