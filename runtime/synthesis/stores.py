"""A job whose images or dataset lie in a store like S3, through fsspec.

Images are fetched, and the dataset is made in a folder of the user's cache, where the same command
goes on with it. Then its files are sent, ``job.json`` last: a dataset that has one is whole.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from ..config.job import JobConfig
from ..errors import InputError, MissingExtraError, OutputError, UsageError
from ..extras import requires
from ..files import leaves
from ..images.folder import images_of
from ..output.journal import JOURNAL
from ..output.records import JOB
from .job import Summary, synthesize

__all__ = ["address_of", "synthesize_in_store"]

#: An address as `Path` leaves it, with one slash less.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/(?!/)(.+)")
#: Tries of a file, and seconds before the second one; each further wait is twice as long.
_TRIES, _FIRST_WAIT = 5, 0.5
_ADVICE = "what is there is whole, run the same command again to go on"


def address_of(path: Path | None) -> str | None:
    """The address in a store that a path was given as, as in s3://bucket/folder."""
    found = _ADDRESS.fullmatch(path.as_posix()) if path else None
    return f"{found[1]}://{found[2]}" if found else None


def synthesize_in_store(config: JobConfig, *, quiet: bool = False) -> Summary:
    """As `synthesize`, with addresses as ``images`` or ``out``; the bytes are the same.

    Raises `UsageError` for images in a store without ``out``; `InputError` and `OutputError` for
    what cannot be fetched or sent after some tries, and for another job that is in the store.
    """
    source, target = address_of(config.images), address_of(config.out)
    if source and not config.out:
        raise UsageError("nothing lies beside images in a store; give --out")
    key = hashlib.sha256(f"{source or config.images}\n{target or config.out}".encode())
    cache = user_cache_path("defectrt") / "stores" / key.hexdigest()[:16]
    if source:
        _fetch(source, cache / "images")
        config = config.replace(images=cache / "images")
    if not target:
        return synthesize(config=config, quiet=quiet)
    summary = synthesize(config=config.replace(out=cache / "out"), quiet=quiet)
    _send(cache / "out", target)
    shutil.rmtree(cache)
    return summary


def _open(address: str) -> tuple[Any, str]:
    """The store of an address, and the path in it."""
    with requires("stores"):
        import fsspec

        try:
            store, root = fsspec.core.url_to_fs(address, use_listings_cache=False)
        except ValueError as error:
            raise UsageError(f"{address}: {error}") from error
        except ImportError as error:
            raise MissingExtraError(
                f"{address}: {error}; for S3 run: pip install 'defectrt[stores]'"
            ) from error
    return store, root


def _fetch(address: str, folder: Path) -> None:
    """Have the images of a store in a folder, and none else; those that are there stay."""
    store, root = _open(address)

    def fault(error: Exception) -> InputError:
        return InputError(f"{address}: cannot be fetched ({error}); run the same command again")

    sizes = _tried(lambda: {n: i["size"] for n, i in store.find(root, detail=True).items()}, fault)
    names = {n.removeprefix(root).lstrip("/"): (n, size) for n, size in sizes.items()}
    wanted = {str(path) for path in images_of(map(Path, names))}
    if not wanted or any(map(leaves, wanted)):
        raise InputError(f"{address}: no images")
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        if path.relative_to(folder).as_posix() not in wanted:
            path.unlink()
    for name in sorted(wanted):
        remote, size = names[name]
        path = folder / name
        if not (path.is_file() and path.stat().st_size == size):
            _tried(partial(_get, store, remote, path, size), fault)


def _get(store: Any, remote: str, path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    store.get_file(remote, str(partial))
    if partial.stat().st_size != size:
        raise OSError(f"{remote} came with {partial.stat().st_size} of {size} bytes")
    partial.replace(path)


def _send(folder: Path, address: str) -> None:
    """Have a dataset's files in a store, its job last."""
    store, root = _open(address)

    def fault(error: Exception) -> OutputError:
        return OutputError(f"{address}: cannot be written ({error}); {_ADVICE}")

    def there() -> bytes | None:
        return bytes(store.cat_file(f"{root}/{JOB}")) if store.exists(f"{root}/{JOB}") else None

    job = (folder / JOB).read_bytes()
    before = _tried(there, fault)
    if before not in (None, job):
        raise OutputError(f"{address}: holds another job; choose another --out")
    files = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(JOURNAL)]
    for path in sorted(files, key=lambda p: (p == folder / JOB, p)):
        name = f"{root}/{path.relative_to(folder).as_posix()}"
        _tried(partial(_put, store, path, name), fault)


def _put(store: Any, path: Path, name: str) -> None:
    store.put_file(str(path), name)
    if store.info(name)["size"] != path.stat().st_size:
        raise OSError(f"{name} is cut off")


def _tried(do: Callable[[], Any], fault: Callable[[Exception], Exception]) -> Any:
    """What ``do`` returns, in some tries with longer and longer waits."""
    for wait in range(_TRIES - 1):
        with suppress(OSError):
            return do()
        time.sleep(_FIRST_WAIT * 2**wait)
    try:
        return do()
    except OSError as error:
        raise fault(error) from error
