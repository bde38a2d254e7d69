from collections.abc import Callable

import pytest

from weakseg.refine import compiled as module


def test_compiles_without_a_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def njit(cache: bool = False, nogil: bool = False) -> Callable:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(module, "njit", njit)
    assert module.compiled(abs) is abs
