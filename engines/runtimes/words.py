"""What sessions say: who computed, and why it failed."""

from __future__ import annotations

import re
from typing import Final

from engines.card import Precision
from engines.errors import RuntimeFailedError
from engines.runtimes.base import Tensors

_LONGEST: Final = 200
_LONGEST_READ: Final = 4000

_SOURCE_PLACES: Final = re.compile(
    r"Exception from \S+:\d+:"
    r"|Check '[^\n]*?' failed at \S+:\d+:"
    r"|FrontEnd API failed with \w+:"
    r"|\[ONNXRuntimeError\] : \d+ : "
    r"|\b[\w/]+\.(?:h|hpp|cc|cpp):\d+:? "
)
"""Where in their own source libraries say that they failed. It tells those who run a node nothing."""

_FOLDERS: Final = re.compile(r"(?:/[^\s/\"']+)+/(?=[^\s/\"'])")


def identity(name: str, version: str, precision: Precision) -> str:
    """`Session.identity`. Of the version only major and minor: patches do not change what is computed."""
    major, minor = version.split(".")[:2]
    return f"{name}-{major}.{minor}/{precision}"


def said(error: Exception) -> str:
    """A library's words, short and on one line, without places in its source and on this disk. They name nodes and
    shapes of a network, never values."""
    told = _SOURCE_PLACES.sub(" ", str(error)[:_LONGEST_READ])
    text = " ".join(_FOLDERS.sub("", told).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def failed_at(tensors: Tensors, why: str) -> RuntimeFailedError:
    """What is raised where a network could not be computed for tensors that it takes by its inputs."""
    shapes = ", ".join(f"{name} {' x '.join(map(str, values.shape))}" for name, values in sorted(tensors.items()))
    return RuntimeFailedError(
        f"the network failed at {shapes}: {why}", "if every size fails, see: dicomnode engines check"
    )
