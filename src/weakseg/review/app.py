"""The server of the review's page: on this machine alone, for whoever has its token.

A page of another site that the same browser shows can send requests here as well. So each must
name this machine as its host, which a rebound DNS name doesn't; bear the token, in a cookie that
other sites don't send; and, where it changes something, come from this page.
"""

import secrets
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from weakseg.data.images import encode_image, read_photo, read_small_photo
from weakseg.data.masks import VOC_PALETTE
from weakseg.engine.reviewed import Strokes
from weakseg.errors import WeaksegError, mismatch
from weakseg.refine.strokes import Mender, Stroke
from weakseg.review.photos import Review
from weakseg.review.teaching import Teacher

STATIC = Path(str(files("weakseg.review") / "static"))
HOST = "127.0.0.1"

_KEPT = 6
"""Photos whose menders are kept: the one that is looked at, the next, and some to go back to."""
_MOST_BYTES = 8 * 2**20
_THUMBNAIL = 160

Body = TypeVar("Body", bound=BaseModel)


class _Accepted(BaseModel):
    model_config = ConfigDict(extra="forbid")
    accepted: bool


class _Tags(BaseModel):
    model_config = ConfigDict(extra="forbid")
    tags: list[str]


class Guard:
    """Lets through what this page asks.

    Args:
        app: what is guarded.
        token: that the page's address bears, and then its cookie.
        port: of the server.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app, self._token = app, token
        self._hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
        self._cookie = f"weakseg-review-{port}"  # cookies know no ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        host = request.headers.get("host", "")
        if host not in self._hosts:
            refusal: Response | None = PlainTextResponse("another host", 403)
        elif self._is_known(request.query_params.get("token", "")) and request.url.path == "/":
            refusal = RedirectResponse("/", 303)
            refusal.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
        elif not self._is_known(request.cookies.get(self._cookie, "")):
            refusal = PlainTextResponse("Open the address that weakseg review has printed.", 403)
        elif request.method not in ("GET", "HEAD") and (
            request.headers.get("origin") != f"http://{host}"
        ):
            refusal = PlainTextResponse("another origin", 403)
        else:
            refusal = None
        await (refusal or self._app)(scope, receive, self._closed(send))

    def _is_known(self, token: str) -> bool:
        return secrets.compare_digest(token.encode(), self._token.encode())

    @staticmethod
    def _closed(send: Send) -> Send:
        """Nothing from elsewhere runs in the page, and nothing frames it."""
        policy = b"default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'"
        headers = [
            (b"content-security-policy", policy),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ]

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        return sending


class Desk:
    """What the page's requests do, on any thread.

    Args:
        review: the photos.
    """

    def __init__(self, review: Review) -> None:
        self.review = review
        self._menders: OrderedDict[str, Future[Mender]] = OrderedDict()
        self._lock = Lock()
        self._locks: dict[str, Lock] = {}
        self._ahead = ThreadPoolExecutor(1)
        self._ahead.submit(self._warm_up)
        self._teacher, self._teaching = Teacher(review), Lock()
        self._key = secrets.token_hex(4)  # a browser keeps photos, and another run has others

    def overview(self) -> dict[str, Any]:
        """What the page shows before any photo is opened."""
        review = self.review
        confidence, reviewed = review.run.confidence, review.reviewed
        return {
            "key": self._key,
            "run": review.run.folder.name,
            "step": review.step.name,
            "classes": list(review.run.classes),
            "colours": VOC_PALETTE.tolist(),
            "photos": [
                {
                    "id": photo,
                    "tags": list(review.sample(photo).tags),
                    "confidence": confidence.get(photo),
                    "accepted": reviewed.accepted(photo).is_file(),
                    "mended": reviewed.mended(photo).is_file(),
                }
                for photo in review.order
            ],
        }

    def photo(self, photo: str, small: bool) -> bytes:
        """A photo as JPEG."""
        path = self.review.sample(photo).image
        pixels = read_small_photo(path, _THUMBNAIL) if small else read_photo(path)
        return encode_image(Image.fromarray(pixels), "JPEG", quality=90)

    def mask(self, photo: str) -> bytes:
        """A photo's mask as grey PNG, of ids; its strokes will soon be needed."""
        self._ahead.submit(self._mender, photo)
        return _grey_png(self.review.mask(photo))

    def draw(self, photo: str, strokes: Strokes) -> bytes:
        """Keep strokes; the mask that they make."""
        with self._lock_of(photo):
            mask = self.review.mended(self._mender(photo), strokes)
            self.review.reviewed.draw(photo, strokes, mask)
        return _grey_png(mask)

    def accept(self, photo: str, accepted: bool) -> dict[str, Any]:
        """Hold a photo's mask fixed as it is now, or no longer."""
        with self._lock_of(photo):
            reviewed = self.review.reviewed
            if accepted:
                reviewed.accept(photo, self.review.mask(photo))
            else:
                reviewed.reopen(photo)
        return {"accepted": accepted}

    def tag(self, photo: str, tags: Sequence[str]) -> dict[str, Any]:
        """Give a photo other tags, in the classes' order; strokes of a lost one go."""
        classes = self.review.run.classes
        if strange := [tag for tag in tags if tag not in classes]:
            raise WeaksegError(f"{strange[0]!r} is no class of this run.")
        kept = sorted(set(tags), key=classes.index)
        with self._lock_of(photo):
            reviewed = self.review.reviewed
            with self._lock:  # all photos' tags are in one file
                reviewed.tag(photo, kept)
                self._menders.pop(photo, None)
            known = reviewed.strokes(photo)
            names = self.review.named(photo)
            strokes = [stroke for stroke in known.strokes if stroke.name in names]
            left = known.model_copy(update={"strokes": strokes})
            reviewed.draw(photo, left, self.review.mended(self._mender(photo), left))
        return {"tags": kept, "strokes": left.model_dump(mode="json")["strokes"]}

    def teach(self) -> dict[str, Any]:
        """Have the masks that nobody touched follow those that were."""
        with self._teaching:
            taught = self._teacher.teach()
        with self._lock:
            self._menders.clear()
        return taught._asdict()

    def _warm_up(self) -> None:
        """Import and compile what the first stroke would wait for."""
        blank = Mender(np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.int16))
        blank.mend([Stroke(1, ((16, 16),), 4)], self.review.crf)

    def _mender(self, photo: str) -> Mender:
        with self._lock:
            made = self._menders.get(photo)
            if known := made is not None:
                self._menders.move_to_end(photo)
            else:
                made = self._menders[photo] = Future()
                while len(self._menders) > _KEPT:
                    self._menders.popitem(last=False)
        if known:
            return made.result()
        try:
            made.set_result(self.review.mender(photo))
        except BaseException as error:
            made.set_exception(error)
            with self._lock:
                if self._menders.get(photo) is made:
                    del self._menders[photo]
        return made.result()

    def _lock_of(self, photo: str) -> Lock:
        with self._lock:
            return self._locks.setdefault(photo, Lock())


def make_app(review: Review, token: str, port: int) -> Starlette:
    """The page and what it asks, behind its guard."""
    desk = Desk(review)

    def of_photo(request: Request) -> str:
        photo = request.query_params.get("id", "")
        if photo not in review.photos:
            raise HTTPException(404, "no such photo")
        return photo

    async def body(request: Request, model: type[Body]) -> Body:
        content = b""
        async for part in request.stream():
            content += part
            if len(content) > _MOST_BYTES:
                raise HTTPException(413, "too long")
        try:
            return model.model_validate_json(content)
        except ValidationError as error:
            raise HTTPException(422, mismatch(error)) from None

    async def page(request: Request) -> Response:
        return Response((STATIC / "index.html").read_bytes(), media_type="text/html")

    async def overview(request: Request) -> Response:
        return _json(await run_in_threadpool(desk.overview))

    async def photo(request: Request) -> Response:
        small = "small" in request.query_params
        content = await run_in_threadpool(desk.photo, of_photo(request), small)
        return Response(
            content, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"}
        )

    async def mask(request: Request) -> Response:
        return _png(await run_in_threadpool(desk.mask, of_photo(request)))

    async def strokes(request: Request) -> Response:
        photo = of_photo(request)
        if request.method == "GET":
            return _json(review.reviewed.strokes(photo).model_dump(mode="json"))
        drawn = await body(request, Strokes)
        return _png(await run_in_threadpool(desk.draw, photo, drawn))

    async def accept(request: Request) -> Response:
        photo, given = of_photo(request), await body(request, _Accepted)
        return _json(await run_in_threadpool(desk.accept, photo, given.accepted))

    async def tags(request: Request) -> Response:
        photo, given = of_photo(request), await body(request, _Tags)
        return _json(await run_in_threadpool(desk.tag, photo, given.tags))

    async def teach(request: Request) -> Response:
        return _json(await run_in_threadpool(desk.teach))

    return Starlette(
        routes=[
            Route("/", page),
            Route("/overview", overview),
            Route("/photo", photo),
            Route("/mask", mask),
            Route("/strokes", strokes, methods=["GET", "POST"]),
            Route("/accept", accept, methods=["POST"]),
            Route("/tags", tags, methods=["POST"]),
            Route("/teach", teach, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(Guard, token=token, port=port)],
        exception_handlers={WeaksegError: _say},
    )


def serve(review: Review, port: int, started: Callable[[str], None]) -> None:
    """Serve the page until it is interrupted.

    Args:
        port: on loopback; 0 takes a free one.
        started: is told the page's address, with its token.

    Raises:
        WeaksegError: another program has the port.
    """
    import uvicorn

    listening = socket.socket()
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen()  # before a browser comes
    except OSError as error:
        raise WeaksegError(
            f"Port {port} can't be listened on: {error.strerror}. Give another --port, or none."
        ) from error
    port, token = listening.getsockname()[1], secrets.token_urlsafe(24)
    config = uvicorn.Config(make_app(review, token, port), log_level="warning", lifespan="off")
    started(f"http://{HOST}:{port}/?token={token}")
    uvicorn.Server(config).run(sockets=[listening])


async def _say(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 409)


def _json(value: Any) -> Response:
    return JSONResponse(value, headers={"cache-control": "no-store"})


def _png(content: bytes) -> Response:
    return Response(content, media_type="image/png", headers={"cache-control": "no-store"})


def _grey_png(mask: NDArray[np.uint8]) -> bytes:
    return encode_image(Image.fromarray(mask), "PNG", compress_level=1)
