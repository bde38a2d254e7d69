"""Reads spoilt inputs in a process with limits, and says what came of each.

Started by `fuzz.py`, with a line of JSON for each input on standard input and on standard output.
"""

import json
import os
import random
import resource
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from mutate import CANARY

MEMORY = 2 * 2**30
"""Bytes that reading one input may add: the largest photo takes half of it for some moments."""

_HARD = 24 * 2**30
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
    "os.mkdir": 1,
    "os.rmdir": 1,
    "os.remove": 1,
    "os.chmod": 1,
    "os.rename": 2,
    "os.link": 2,
    "os.symlink": 2,
    "shutil.rmtree": 1,
}
"""Events of the interpreter, and how many of their first arguments are paths that change."""

_RUNS = frozenset(
    {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect"}
    | {"os.startfile", "pty.spawn", "webbrowser.open", "urllib.Request"}
)


class _Slow(BaseException):
    """An input takes more of the processor than it may."""


class _Watch:
    """Hears of every file that is written and every program that is run."""

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] = ()
        self.on = False
        self.escaped: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in _RUNS and not _is_local(event, arguments):
            self.escaped.append(f"{event} {arguments[:1]!r:.80}")
        elif event == "open":
            path, _, flags = arguments
            if flags and flags & _WRITES and not isinstance(path, int):
                self._changes(event, path)
        elif event in _CHANGES and not _is_within(arguments):
            for path in arguments[: _CHANGES[event]]:
                if not isinstance(path, int):
                    self._changes(event, path)

    def _changes(self, event: str, path: Any) -> None:
        named = Path(os.fsdecode(path))
        place = named.parent.resolve() / named.name
        if str(named) != os.devnull and not str(place).startswith(self.allowed):
            self.escaped.append(f"{event} {str(named)!r:.80}")


def _is_local(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether a process of this machine is spoken to, as a training does with its loaders."""
    return event == "socket.connect" and arguments[0].family == socket.AF_UNIX


def _is_within(arguments: tuple[Any, ...]) -> bool:
    """Whether a path is told from an open folder, as by `shutil.rmtree`, whose own is heard."""
    return len(arguments) > 1 and isinstance(arguments[-1], int) and arguments[-1] > 2


def main() -> None:
    corpus, scratch = Path(sys.argv[1]), Path(sys.argv[2]).resolve()
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints
    signal.signal(signal.SIGPROF, _too_slow)
    os.chdir(scratch)
    sys.dont_write_bytecode = True
    from targets import TARGETS, Trial

    watch = _Watch()
    _limit()
    trials: dict[str, Trial] = {}
    print(json.dumps({"ready": True}), file=out)
    for line in sys.stdin:
        name, seed = json.loads(line)
        if name not in trials:
            trials[name] = Trial(TARGETS[name], corpus, scratch / f"t{len(trials)}")
            trials[name].warm_up()
        print(json.dumps(_try(trials[name], seed, watch, scratch)), file=out)


def _try(trial: Any, seed: str, watch: _Watch, scratch: Path) -> dict[str, Any]:
    rng = random.Random(seed)
    spoilt = trial.spoil(rng)
    watch.allowed = (
        os.environ["NUMBA_CACHE_DIR"],
        *(str(trial.folder / place) for place in trial.target.writes),
    )
    watch.escaped.clear()
    _forget_peak()
    before, start = _memory("VmRSS"), time.process_time()
    found: dict[str, Any] = {"spoilt": spoilt, "came": "fine", "said": ""}
    signal.setitimer(signal.ITIMER_PROF, trial.target.seconds)
    watch.on = True
    try:
        trial.read(rng)
    except _Slow:
        found |= {"came": "hang", "said": _where(sys.exc_info()[2])}
    except Exception as error:
        found |= _judged(error)
    finally:
        watch.on = False
        signal.setitimer(signal.ITIMER_PROF, 0)
    found["seconds"] = round(time.process_time() - start, 3)
    found["memory"] = _memory("VmHWM") - before
    if found["memory"] > MEMORY and found["came"] != "traceback":
        found |= {"came": "memory", "said": f"{found['memory'] >> 20} MiB"}
    if (scratch / CANARY).exists():
        watch.escaped.append("code was executed")
        (scratch / CANARY).unlink()
    if watch.escaped:
        found |= {"came": "escape", "said": "; ".join(watch.escaped[:3])}
    trial.restore()
    return found


def _judged(error: Exception) -> dict[str, Any]:
    from weakseg.errors import WeaksegError

    if isinstance(error, WeaksegError | OSError):
        said = str(error)
        if len(said.splitlines()) > 4 or len(said) > 4000:
            return {"came": "traceback", "said": f"no clear line: {said[:200]!r}"}
        return {"came": "refused", "said": said[:200]}
    where = _where(error.__traceback__)
    return {"came": "traceback", "said": f"{type(error).__name__}: {str(error)[:120]} ({where})"}


def _where(trace: Any) -> str:
    """The package's own lines that were innermost."""
    frames = [f for f in traceback.extract_tb(trace) if "weakseg/" in f.filename]
    return " < ".join(
        f"{f.filename.rpartition('weakseg/')[2]}:{f.lineno} {f.name}" for f in frames[:-4:-1]
    )


def _too_slow(*_: Any) -> None:
    raise _Slow


def _limit() -> None:
    most = _memory("VmSize") + _HARD
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, 2**30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _memory(name: str) -> int:
    """Bytes, as Linux counts them for this process."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


if __name__ == "__main__":
    main()
