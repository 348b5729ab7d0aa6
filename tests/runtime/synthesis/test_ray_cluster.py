"""A job on a local cluster of Ray is the job of one process, byte for byte, whoever is killed."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from support.outputs import dataset_of, save

from defectrt.config.job import JobConfig
from defectrt.errors import UsageError
from defectrt.synthesis.job import synthesize
from defectrt.synthesis.ray_cluster import synthesize_on_ray

pytestmark = pytest.mark.slow


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(8):
        save(tmp_path / "good" / f"{i}.png", rng.integers(140, 170, (64, 64), np.uint8))
    return JobConfig(
        images=tmp_path / "good",
        out=tmp_path / "cluster",
        defect="crack",
        count=2,
        threads=1,
        format="coco",
    )


def test_a_shard_is_no_job_for_a_cluster(config):
    pytest.importorskip("ray")
    with pytest.raises(UsageError, match="makes shards by itself"):
        synthesize_on_ray(config.replace(shard="1/2"))


def kill_one_once_it_works(folder, killed):
    """The first process of an actor that has a sample on the disk."""
    import psutil

    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not killed:
        if any(folder.glob("*/parts/test/crack/*.png")):
            for process in psutil.Process().children(recursive=True):
                if process.name().startswith("ray::_Maker"):
                    killed.append(process.pid)
                    process.kill()
                    return
        time.sleep(0.02)


def test_the_bytes_are_those_of_one_process_though_an_actor_is_killed(config, tmp_path, capfd):
    pytest.importorskip("ray")
    killed = []
    watching = threading.Thread(
        target=kill_one_once_it_works, args=(tmp_path / "cluster-shards", killed)
    )
    watching.start()
    made = synthesize_on_ray(config, actors=2)
    watching.join()
    assert killed
    assert "lost the actor of shard" in capfd.readouterr().err
    alone = synthesize(config=config.replace(out=tmp_path / "alone"), quiet=True)
    assert dataset_of(tmp_path / "cluster") == dataset_of(tmp_path / "alone")
    assert (made.kept, made.requested) == (alone.kept, 16)
    assert not (tmp_path / "cluster-shards").exists()
    assert synthesize_on_ray(config).kept == made.kept  # finished: nothing is started


def test_a_step_of_ray_data_makes_what_a_synthesizer_makes(config, tmp_path):
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    from defectrt import Synthesizer
    from defectrt.training.hooks.ray_data import PaintBatches

    rows = [
        {"image": np.full((64, 64, 3), 150 + i, np.uint8), "path": f"/x/{i}.png"} for i in range(4)
    ]
    options = {"defect": "crack", "threads": 1}
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    try:
        made = ray.data.from_items(rows).map_batches(
            PaintBatches, fn_constructor_kwargs=options, concurrency=1, batch_size=2
        )
        found = {row["name"]: row for row in made.take_all()}
    finally:
        ray.shutdown()
    with Synthesizer(**options) as synthesizer:
        for i, row in enumerate(rows):
            result = synthesizer(row["image"], name=f"{i}.png")
            np.testing.assert_array_equal(found[f"{i}.png"]["image"], result.image)
            np.testing.assert_array_equal(found[f"{i}.png"]["mask"] > 0, result.label)
