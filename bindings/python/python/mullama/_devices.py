"""What models can compute with."""

from __future__ import annotations

from . import _mullama

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._types import BackendInfo, DeviceInfo


def backends() -> list[BackendInfo]:
    """What llama.cpp was built with. The first call looks for devices, which
    may take a moment; the GIL is released meanwhile.

    Raises `UnsupportedError` on a processor that this build can't run on.
    """
    return _mullama.backends()


def devices() -> list[DeviceInfo]:
    """What was found to compute with, with its memory. Otherwise like
    `backends`."""
    return _mullama.devices()
