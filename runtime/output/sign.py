"""Copies of made pictures with a C2PA manifest, signed with the user's own key.

A signature has the time and chance in it, so it is on copies: the dataset stays as it was made, and
can be gone on with.
"""

from __future__ import annotations

import json
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

from .. import __version__
from ..config.signing import Algorithm
from ..errors import InputError, OutputError
from ..extras import requires
from ..files import read_input, write_whole
from ..images.types import MAX_BYTES
from .mark import SOURCE_TYPE, read_mark
from .records import read_finished

__all__ = ["sign"]

#: Of a file of keys.
_LONGEST = 1 << 20


def sign(
    made: str | PathLike[str],
    out: str | PathLike[str],
    *,
    certificate: str | PathLike[str],
    key: str | PathLike[str],
    algorithm: Algorithm = "es256",
    timestamp_url: str | None = None,
) -> int:
    """Write signed copies of a made picture, or of all in a finished dataset; how many.

    ``certificate`` is the chain in PEM, the signer's first, and ``key`` its private key in PEM. A
    time stamp is asked for at ``timestamp_url`` alone, and nothing else leaves the machine.

    Raises `InputError` for a picture that does not say how it was made, and for keys that cannot
    sign; `OutputError` for a file that is there already; `MissingExtraError` without c2pa-python.
    """
    with requires("c2pa"):
        import c2pa
    made, out = Path(made), Path(out)
    try:
        info = c2pa.C2paSignerInfo(
            algorithm,
            read_input(Path(certificate), _LONGEST),
            read_input(Path(key), _LONGEST),
            timestamp_url,
        )
        signer = c2pa.Signer.from_info(info)
    except c2pa.C2paError as error:
        raise InputError(
            f"{certificate} and {key}: cannot sign by {algorithm} ({error})"
        ) from error
    paths = [entry.image for entry in read_finished(made).entries] if made.is_dir() else [made.name]
    folder = made if made.is_dir() else made.parent
    if there := [out / path for path in paths if (out / path).exists()]:
        raise OutputError(f"{there[0]}: there already; choose another --out")
    with signer:
        for path in paths:
            write_whole(out / path, _signed(c2pa, signer, folder / path))
    return len(paths)


def _signed(c2pa: Any, signer: Any, path: Path) -> bytes:
    read_mark(path)
    said = {
        "claim_generator_info": [{"name": "defectrt", "version": __version__}],
        "title": path.name,
        "assertions": [
            {
                "label": "c2pa.actions.v2",
                "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE}]},
            }
        ],
    }
    signed = BytesIO()
    try:
        with c2pa.Builder(json.dumps(said)) as builder:
            builder.sign(signer, "image/png", BytesIO(read_input(path, MAX_BYTES)), signed)
    except c2pa.C2paError as error:
        raise InputError(f"{path}: cannot be signed ({error})") from error
    return signed.getvalue()
