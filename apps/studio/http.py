"""What the studio's pages ask for: below ``/v1/studio``, with the service's token."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from defectrt.config.base import Config
from defectrt.engines.manifest import Manifest, read_manifest
from defectrt.errors import InputError
from defectrt.files import parse_json
from defectrt.synthesis.scheduler import Task
from defectrt.synthesis.transplant import donor_types
from defectrt.synthesis.workpiece import Checked, Result

from ..service.asking import checked
from ..service.http import arriving, make_app, patiently
from ..service.line import Line
from ..service.opened import Service
from .begin import LearnAsk, MakeAsk, ProposeAsk, ProveAsk, SampleAsk
from .config import StudioConfig
from .home import Drawn, Home
from .outcome import learning, shown_file
from .preview import GAIN, cut_out, read_workpiece, type_in_job
from .reviewing import ReviewAsk, carry_out, dataset, label, sample
from .tasks import Tasks

__all__ = ["make_studio"]

C = TypeVar("C", bound=Config)

_WEB = Path(__file__).parent / "web"
#: A page of the studio may show what it has asked for itself, and nothing else.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' "
    "'unsafe-inline'; img-src 'self' blob: data:; connect-src 'self'; frame-src blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


#: What a command left is shown by a page, and is none itself.
_LEFT = {"Content-Security-Policy": "default-src 'none'; sandbox", "Cache-Control": "no-store"}


class PictureAsk(Config):
    """A picture of a folder."""

    folder: Path
    name: str


class DrawAsk(PictureAsk):
    """What was drawn on a picture; without a PNG, nothing."""

    x: int = 0
    y: int = 0
    png: str = ""


class PreviewAsk(SampleAsk):
    """The first sample of a picture in a job over its folder."""

    name: str


def make_studio(config: StudioConfig, service: Service, home: Home, tasks: Tasks) -> FastAPI:
    """The service's application with the studio on it. Raises as `make_app` does."""
    app = make_app(config, service)
    studio = _Studio(config, service, home, tasks)
    _add_pages(app)
    _add_pictures(app, studio)
    _add_samples(app, studio)
    _add_tasks(app, studio)
    _add_reviews(app)
    return app


class _Studio:
    """What all answers need."""

    def __init__(self, config: StudioConfig, service: Service, home: Home, tasks: Tasks) -> None:
        self.config, self.service, self.home, self.tasks = config, service, home, tasks

    def line(self, name: str) -> Line:
        """An engine by name, the service's or one that was learned; opened when it is needed."""
        learned = self.home.engines()
        if name in learned and name not in self.service.lines:
            return self.service.open(name, learned[name])
        return self.service.line(name or None)

    def engines(self) -> list[dict[str, Any]]:
        """Every engine that can be chosen."""
        found = {name: line.manifest for name, line in self.service.lines.items()}
        for name, path in self.home.engines().items():
            if name not in found:
                found[name] = read_manifest(path)
        return [_engine(name, manifest) for name, manifest in found.items()]


def _engine(name: str, manifest: Manifest) -> dict[str, Any]:
    return {
        "name": name,
        "defect_types": manifest.defect_types,
        "steps": manifest.schedule.default_steps,
        "fewest_steps": min(map(int, manifest.schedule.tables)),
    }


def _add_pages(app: FastAPI) -> None:
    files = {path.name: path.read_bytes() for path in _WEB.iterdir() if path.is_file()}

    @app.get("/studio/{name:path}", include_in_schema=False)
    async def page(name: str) -> Response:
        name = name or "index.html"
        if name not in files:
            raise HTTPException(404, "no such page")
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        kind = "text/javascript" if name.endswith(".js") else kind
        return Response(files[name], media_type=kind, headers=_HEADERS)


def _add_pictures(app: FastAPI, studio: _Studio) -> None:
    home = studio.home

    @app.get("/v1/studio/state")
    async def state() -> dict[str, Any]:
        """What there is to choose from."""
        return {
            "folder": str(home.folder),
            "start": str(Path.home()),
            "engines": await run_in_threadpool(studio.engines),
            "examples": home.examples(),
            "likes": await run_in_threadpool(home.likes),
            "learns": find_spec("torch") is not None and find_spec("onnx") is not None,
            "gain": GAIN,
        }

    @app.get("/v1/studio/listing")
    async def listing(path: str) -> dict[str, Any]:
        """The folders in a folder."""
        return await run_in_threadpool(home.listing, Path(path))

    @app.get("/v1/studio/pictures")
    async def pictures(folder: str) -> dict[str, Any]:
        """The pictures in a folder and below."""
        return await run_in_threadpool(home.pictures, Path(folder))

    @app.post("/v1/studio/pictures")
    async def add(request: Request, place: str, name: str) -> dict[str, str]:
        """Take a dropped picture in, the body, below one of the studio's own places."""
        target = home.below(*place.split("/"))
        data = await arriving(request.body())
        kept = await run_in_threadpool(home.add, target, name, data)
        return {"folder": str(target), "name": kept}

    @app.delete("/v1/studio/pictures")
    async def remove(folder: str, name: str) -> dict[str, str]:
        """Take a dropped picture away again."""
        await run_in_threadpool(home.remove, Path(folder), name)
        return {}

    @app.get("/v1/studio/picture")
    async def picture(folder: str, name: str, side: int = 0) -> Response:
        """A picture as a browser can show it."""
        path = home.picture(Path(folder), name)
        data, kind = await run_in_threadpool(home.view, path, side)
        return Response(data, media_type=kind)

    @app.get("/v1/studio/mask")
    async def mask(folder: str, name: str) -> dict[str, Any]:
        """What was drawn on a picture, or proposed for it."""
        drawn = await run_in_threadpool(home.drawn, Path(folder), name)
        return drawn.model_dump() if drawn else {}

    @app.put("/v1/studio/mask")
    async def draw(request: Request) -> dict[str, Any]:
        """Keep what was drawn on a picture."""
        ask = await _given(request, DrawAsk)
        drawn = Drawn(x=ask.x, y=ask.y, png=ask.png) if ask.png else None
        await run_in_threadpool(home.draw, ask.folder, ask.name, drawn)
        return {}


def _add_samples(app: FastAPI, studio: _Studio) -> None:
    @app.post("/v1/studio/preview")
    async def preview(request: Request) -> dict[str, Any]:
        """A sample as a job makes it, cut out around its defect."""
        studio.service.check_room()
        ask = await _given(request, PreviewAsk)
        line = await run_in_threadpool(studio.line, ask.engine)
        how = checked(line.config.replace(**ask.all_options(studio.home)))
        path = studio.home.picture(ask.folder, ask.name)

        def prepared() -> tuple[Checked, Task[Result]]:
            names = studio.home.names(ask.folder)
            made = list(donor_types(how.like)) if how.like else line.manifest.defect_types
            defect = type_in_job(how, made, names, ask.name)
            workpiece = read_workpiece(path, ask.name, how, defect)
            return workpiece, line.task(how, workpiece, number=0)

        workpiece, task = await run_in_threadpool(prepared)
        ticket = asyncio.wrap_future(line.submit(task))
        result = await patiently(request, ticket, studio.config.timeout)
        return await run_in_threadpool(cut_out, workpiece, result)


def _add_tasks(app: FastAPI, studio: _Studio) -> None:
    tasks = studio.tasks

    async def begin(ask: MakeAsk | ProposeAsk | LearnAsk | ProveAsk) -> dict[str, Any]:
        def prepared() -> dict[str, Any]:
            line = studio.line(getattr(ask, "engine", ""))
            kind, title, arguments, out = ask.command(studio.home, line)
            return asdict(tasks.begin(kind, title, arguments, out))

        return await run_in_threadpool(prepared)

    @app.post("/v1/studio/make", status_code=202)
    async def make(request: Request) -> dict[str, Any]:
        """Begin `defectrt synthesize`."""
        return await begin(await _given(request, MakeAsk))

    @app.post("/v1/studio/propose", status_code=202)
    async def propose(request: Request) -> dict[str, Any]:
        """Begin `defectrt data propose`."""
        return await begin(await _given(request, ProposeAsk))

    @app.post("/v1/studio/learn", status_code=202)
    async def learn(request: Request) -> dict[str, Any]:
        """Begin `defectrt learn`."""
        return await begin(await _given(request, LearnAsk))

    @app.post("/v1/studio/prove", status_code=202)
    async def prove(request: Request) -> dict[str, Any]:
        """Begin `defectrt prove`."""
        return await begin(await _given(request, ProveAsk))

    @app.get("/v1/studio/tasks")
    async def listed() -> list[dict[str, Any]]:
        """Every command that was begun here, the latest first."""
        return [asdict(task) for task in await run_in_threadpool(tasks.all)]

    @app.get("/v1/studio/tasks/{identity}/learning")
    async def curves(identity: str) -> dict[str, Any]:
        """How a training does."""
        return await run_in_threadpool(lambda: learning(_known(lambda: tasks.task(identity))))

    @app.get("/v1/studio/tasks/{identity}/{what}")
    async def left(identity: str, what: str) -> Response:
        """A picture or a page that a command left: preview, sheet, report."""
        data, kind = await run_in_threadpool(
            lambda: shown_file(_known(lambda: tasks.task(identity)), what)
        )
        return Response(data, media_type=kind, headers=_LEFT)

    @app.delete("/v1/studio/tasks/{identity}")
    async def stop(identity: str) -> dict[str, Any]:
        """End a command; what it finished stays."""
        return asdict(await run_in_threadpool(_known, lambda: tasks.stop(identity)))


def _add_reviews(app: FastAPI) -> None:
    @app.get("/v1/studio/dataset")
    async def all_samples(out: str) -> dict[str, Any]:
        """The samples of a finished dataset, those that were taken out too."""
        return await run_in_threadpool(dataset, Path(out))

    @app.get("/v1/studio/sample")
    async def one_sample(out: str, image: str) -> dict[str, Any]:
        """The cut-outs of a sample."""
        return await run_in_threadpool(sample, Path(out), image)

    @app.get("/v1/studio/label")
    async def one_label(out: str, image: str) -> dict[str, Any]:
        """The label of a sample."""
        found = await run_in_threadpool(label, Path(out), image)
        return found.model_dump() if found else {}

    @app.post("/v1/studio/review")
    async def decide(request: Request) -> dict[str, int]:
        """Carry out decisions, as `defectrt review` does."""
        return await run_in_threadpool(carry_out, await _given(request, ReviewAsk))


def _known(find: Callable[[], Any]) -> Any:
    try:
        return find()
    except KeyError:
        raise HTTPException(404, "no such task") from None


async def _given(request: Request, kind: type[C]) -> C:
    """What a body of JSON asks for. Raises `InputError`, and `UsageError` for other keys."""
    body = await arriving(request.body())
    if "application/json" not in request.headers.get("content-type", ""):
        raise HTTPException(415, "send application/json")
    try:
        values = parse_json(body)
    except ValueError:
        values = None
    if not isinstance(values, Mapping):
        raise InputError("the body is no JSON object")
    return kind(**values)
