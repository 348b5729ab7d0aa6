"""The service's own language: HTTP, JSON and multipart forms, see `/docs`."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from time import monotonic
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from defectrt import __version__
from defectrt.config.job import SynthesizerConfig
from defectrt.errors import (
    Cancelled,
    DefectRTError,
    EngineError,
    InputError,
    MissingExtraError,
    NoMemoryError,
    UsageError,
)
from defectrt.images.png import encode_png
from defectrt.output.instances import as_levels
from defectrt.output.mark import Mark, marked
from defectrt.synthesis.scheduler import Task
from defectrt.synthesis.workpiece import Result

from .asking import Asked, asked, checked, job_options, parsed, read_workpiece
from .config import ServeConfig
from .errors import Busy, Refused, Stopping, TooLargeError, without_paths
from .guard import Guard
from .jobs import Jobs, as_json
from .opened import Service

__all__ = ["arriving", "make_app", "patiently"]

T = TypeVar("T")

_LOG = logging.getLogger("uvicorn.error")

#: Files and fields of a form, at most; seconds that a body may take to arrive.
_FILES, _FIELDS, _ARRIVING = 2, 64, 30.0
#: Seconds between two looks whether the client is still there, and between two events of a job.
_LOOK, _TICK = 0.25, 0.5
#: The answer to each kind of error: the status, and a word for programs.
_ANSWERS: dict[type[Exception], tuple[int, str]] = {
    UsageError: (400, "options"),
    InputError: (422, "input"),
    TooLargeError: (413, "too_large"),
    MissingExtraError: (415, "format"),
    Busy: (429, "busy"),
    Stopping: (503, "stopping"),
    EngineError: (500, "engine"),
    NoMemoryError: (503, "memory"),
    TimeoutError: (504, "timeout"),
    Cancelled: (499, "gone"),  # nobody reads it
}
_DESCRIPTION = """Puts realistic, labelled defects into pictures of good workpieces.

The same picture, name, number, engine and options give the same bytes as `defectrt synthesize`.
"""
_OPEN_API: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        "mask": {"type": "string", "format": "binary"},
                        "engine": {"type": "string"},
                        "name": {"type": "string"},
                        "number": {"type": "integer", "minimum": 0},
                        "defect": {"type": "string"},
                        "strength": {"type": "string", "example": "0.4,0.6"},
                        "seed": {"type": "integer"},
                    },
                    "additionalProperties": {"type": "string"},
                }
            }
        },
    }
}


def make_app(config: ServeConfig, service: Service) -> FastAPI:
    """The application over what is open, which stays the caller's to close.

    Raises `InputError` for a token that cannot be used.
    """
    app = FastAPIOffline(
        redoc_url=None,
        title="defectrt",
        version=__version__,
        description=_DESCRIPTION,
    )
    _add_samples(app, config, service)
    _add_jobs(app, service)
    _add_state(app, service)
    for kind in (DefectRTError, Refused, TimeoutError, Exception):
        app.exception_handler(kind)(_refuse)
    app.exception_handler(HTTPException)(_refuse_http)
    app.add_middleware(
        Guard,
        hosts=(config.host, *config.allow_host),
        token=config.token(),
        max_bytes=config.max_bytes,
        told=lambda path, status: service.metrics.requests.labels(path, status).inc(),
    )
    return app


def _add_samples(app: FastAPI, config: ServeConfig, service: Service) -> None:
    @app.post("/v1/synthesize", openapi_extra=_OPEN_API)
    async def synthesize(request: Request) -> Response:
        """Put a defect into a picture.

        The answer is JSON with `image` and `label` as PNG in base64 and the `record` of the
        sample; with `Accept: multipart/form-data` the same as parts, with `Accept: image/png` the
        image alone.
        """
        service.check_room()
        wanted = await arriving(_read(request))
        line, metrics = service.line(wanted.engine), service.metrics
        how = checked(line.config.replace(**wanted.options))
        with ExitStack() as held:

            def prepare() -> Task[Result]:
                def take(pixels: int) -> None:
                    held.enter_context(service.room.hold(pixels))

                workpiece = read_workpiece(wanted, how, config.max_pixels, take)
                return line.task(how, workpiece, wanted.number)

            ticket = line.submit(await run_in_threadpool(prepare))
            started = monotonic()
            try:
                result = await patiently(request, asyncio.wrap_future(ticket), config.timeout)
            except (TimeoutError, Cancelled):
                metrics.samples.labels("given up").inc()
                raise
        metrics.seconds.observe(monotonic() - started)
        metrics.samples.labels("without a defect" if result.fault else "made").inc()
        if result.fault:
            raise InputError(f"no sample: {result.fault}; try another number or seed")
        mark = line.mark(how, wanted.files, result) if wanted.mark else None
        return await run_in_threadpool(_answer, request.headers.get("accept", ""), result, mark)

    @app.get("/v1/engines")
    async def engines() -> list[dict[str, Any]]:
        """The engines that are open, and the types of defect that each makes."""
        return [
            {
                "name": name,
                "defect_types": [p.name for p in line.manifest.prompts if p.role == "defect"],
                "window": line.manifest.window,
                "fingerprint": line.manifest.fingerprint,
                "provider": line.provider,
            }
            for name, line in service.lines.items()
        ]


def _add_jobs(app: FastAPI, service: Service) -> None:
    def jobs() -> Jobs:
        if service.jobs is None:
            raise HTTPException(404, "there are no jobs here; see --jobs")
        return service.jobs

    @app.post("/v1/jobs", status_code=202)
    async def begin(request: Request) -> dict[str, Any]:
        """Begin a job over a folder of images: JSON with its name as `images`, and options."""
        values = parsed(await arriving(request.body()))
        images, engine = str(values.pop("images", "")), values.pop("engine", None)
        line = service.line(engine if engine is None else str(engine))
        options = job_options(values)
        of_samples = {k: v for k, v in options.items() if k in SynthesizerConfig.model_fields}
        await run_in_threadpool(line.check, checked(line.config.replace(**of_samples)))
        return as_json(await run_in_threadpool(jobs().submit, images, options, line.config))

    @app.get("/v1/jobs")
    async def listed() -> list[dict[str, Any]]:
        """Every job."""
        return [as_json(job) for job in await run_in_threadpool(jobs().all)]

    @app.get("/v1/jobs/{identity}")
    async def one(identity: str) -> dict[str, Any]:
        """How far a job is."""
        return as_json(_known(lambda: jobs().job(identity)))

    @app.delete("/v1/jobs/{identity}")
    async def cancel(identity: str) -> dict[str, Any]:
        """End a job after the samples at hand; what it made stays."""
        return as_json(_known(lambda: jobs().cancel(identity)))

    @app.get("/v1/jobs/{identity}/events")
    async def events(identity: str) -> StreamingResponse:
        """How far a job is, as server-sent events, until it is over or the service ends."""
        _known(lambda: jobs().job(identity))

        async def stream() -> AsyncIterator[str]:
            last = None
            while True:
                job = await run_in_threadpool(jobs().job, identity)
                if job != last:
                    last = job
                    yield f"data: {json.dumps(as_json(job))}\n\n"
                if job.is_over or not service.is_open:
                    return
                await asyncio.sleep(_TICK)

        return StreamingResponse(stream(), media_type="text/event-stream")


def _add_state(app: FastAPI, service: Service) -> None:
    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz")
    async def alive() -> JSONResponse:
        """Whether the process answers and nothing in it hangs; otherwise, restart it."""
        is_alive = service.is_alive
        status = {"status": "alive" if is_alive else "hangs"}
        return JSONResponse(status, 200 if is_alive else 503)

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz")
    async def ready() -> JSONResponse:
        """Whether samples are taken."""
        is_open = service.is_open
        status = {"status": "ready" if is_open else "not ready"}
        return JSONResponse(status, 200 if is_open else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counters, for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _known(find: Callable[[], Any]) -> Any:
    try:
        return find()
    except KeyError:
        raise HTTPException(404, "no such job") from None


async def arriving(body: Awaitable[T]) -> T:
    """What comes of a body, which has to arrive within `_ARRIVING`."""
    try:
        async with asyncio.timeout(_ARRIVING):
            return await body
    except ClientDisconnect:
        raise Cancelled("the client went away") from None
    except TimeoutError:
        raise HTTPException(408, f"the body took more than {_ARRIVING:g} seconds") from None


async def _read(request: Request) -> Asked:
    """What a request asks for, from a form or JSON."""
    kind, _, rest = request.headers.get("content-type", "").lower().partition(";")
    if kind.strip() == "application/json":
        body = await request.body()
        return await run_in_threadpool(lambda: asked(parsed(body), {}))
    if kind.strip() != "multipart/form-data":
        raise HTTPException(415, "send multipart/form-data or application/json")
    if "charset" in rest:
        raise HTTPException(415, "forms are UTF-8; leave charset out")
    values: dict[str, Any] = {}
    files: dict[str, tuple[str, bytes]] = {}
    async with request.form(max_files=_FILES, max_fields=_FIELDS) as form:
        for key, value in form.multi_items():
            if key in values or key in files:
                raise UsageError(f"{key}: given twice")
            if isinstance(value, UploadFile):
                files[key] = value.filename or "", await value.read()
            else:
                values[key] = value
    return asked(values, files)


async def patiently(request: Request, ticket: asyncio.Future[Result], seconds: float) -> Result:
    """Wait for a sample as long as its client is there; left alone, its rows are freed."""
    end = monotonic() + seconds
    try:
        while True:
            done, _ = await asyncio.wait([ticket], timeout=min(_LOOK, max(0, end - monotonic())))
            if done:
                return ticket.result()
            if monotonic() >= end:
                raise TimeoutError(f"not ready after {seconds:g} seconds")
            if await request.is_disconnected():
                raise Cancelled("the client went away")
    finally:
        ticket.cancel()


def _answer(accept: str, result: Result, mark: Mark | None) -> Response:
    """A sample in the form that its client wants."""
    image, label = encode_png(result.image), encode_png(as_levels([result.label]))
    if mark:
        image = marked(image, mark)
    record = {
        "source": result.name,
        "sample": result.number,
        "defect": result.defect,
        "seed": result.seed,
        **result.figures,
    }
    if "image/png" in accept:
        return Response(image, media_type="image/png")
    if "multipart/form-data" in accept:
        return _multipart(
            image=("image/png", image),
            label=("image/png", label),
            record=("application/json", json.dumps(record).encode()),
        )
    texts = {"image": base64.b64encode(image).decode(), "label": base64.b64encode(label).decode()}
    return JSONResponse(texts | {"record": record})


def _multipart(**parts: tuple[str, bytes]) -> Response:
    boundary = secrets.token_hex(16)
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
        f"Content-Type: {kind}\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, (kind, data) in parts.items()
    )
    kind = f"multipart/form-data; boundary={boundary}"
    return Response(body + f"--{boundary}--\r\n".encode(), media_type=kind)


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    """An error as JSON: a word for programs and a sentence for people.

    What is no fault of the client's is told in full to the service's log alone.
    """
    known = (_ANSWERS[kind] for kind in type(error).__mro__ if kind in _ANSWERS)
    status, code = next(known, (500, "error"))
    said, headers = without_paths(str(error)), dict[str, str]()
    if status == 500:
        if isinstance(error, DefectRTError):
            _LOG.error("%s %r: %s", request.method, request.scope["path"], error)
        else:  # uvicorn logs it, and closes the connection
            headers["Connection"] = "close"
        said = "the service failed; its log says more"
    if isinstance(error, Busy):
        headers["Retry-After"] = str(max(1, math.ceil(error.seconds)))
    return JSONResponse({"error": {"code": code, "message": said}}, status, headers)


async def _refuse_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    content = {"error": {"code": "http", "message": error.detail}}
    return JSONResponse(content, error.status_code, error.headers)
