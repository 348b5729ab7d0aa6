"""libdefectrt, too, checks what an engine's graphs give, at every call."""

from __future__ import annotations

import numpy as np
import pytest
from support import clibrary
from support.hostile_graphs import behind, by_data, edited

pytestmark = pytest.mark.slow
ENGINE = 4


@pytest.fixture(scope="module")
def library():
    try:
        return clibrary.Library(clibrary.build())
    except clibrary.UnavailableError as reason:
        pytest.skip(str(reason))


def made(library, directory):
    """One sample of a grey image."""
    engine = library.open(directory, threads=1)
    session = library.session(engine)
    image, mask = np.full((40, 40, 1), 150, np.uint8), np.zeros((40, 40), np.uint8)
    mask[10:20, 10:20] = 1
    try:
        return library.synthesize(session, image, [mask], seed=1)
    finally:
        library.c.defectrt_session_destroy(session)
        library.c.defectrt_engine_destroy(engine)


@pytest.mark.parametrize(
    ("graph", "output"),
    [
        ("encoder", "latent"),
        ("decoder", "pixels"),
        ("denoiser", "next_latent"),
        ("denoiser", "attention"),
    ],
)
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_values_that_are_not_finite(library, graph, output, value, tmp_path):
    directory = edited(tmp_path / "e", graph, behind(output, "Add", np.float32(value)))
    with pytest.raises(clibrary.StatusError, match=f"{graph}: {output} has values") as raised:
        made(library, directory)
    assert raised.value.status == ENGINE


def test_another_size_than_the_manifest_has(library, tmp_path):
    with pytest.raises(clibrary.StatusError, match="decoder: ") as raised:
        made(library, edited(tmp_path / "e", "decoder", by_data))
    assert raised.value.status == ENGINE
