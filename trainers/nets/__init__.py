"""Networks: (batch, channels, rows, columns) float32 in, as HU / scale_hu, and the same out.

Each tells `halo_px`, how far a pixel of its output looks, and `multiple_px`, of what rows and columns must be a
multiple.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeVar

from torch import nn

from engines.bundle.tables import nearest
from trainers.errors import RecipeError
from trainers.nets.base import Net
from trainers.nets.discriminators import PatchDiscriminator, SRDiscriminator
from trainers.nets.dncnn import DnCNN
from trainers.nets.drl import DRL
from trainers.nets.plain import PlainNet
from trainers.nets.redcnn import REDCNN
from trainers.nets.srresnet import SRResNet

T = TypeVar("T")

NETS: Final[Mapping[str, Callable[..., Net]]] = MappingProxyType(
    {"plain": PlainNet, "drl": DRL, "srresnet": SRResNet, "dncnn": DnCNN, "redcnn": REDCNN}
)
DISCRIMINATORS: Final[Mapping[str, Callable[..., nn.Module]]] = MappingProxyType(
    {"patch": PatchDiscriminator, "srgan": SRDiscriminator}
)


def build(kind: str, arguments: Mapping[str, Any]) -> Net:
    """A net of `NETS` with random weights. Raises RecipeError on a name or an argument that it does not know."""
    return _built(NETS, kind, arguments)


def build_discriminator(kind: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The same for `DISCRIMINATORS`."""
    return _built(DISCRIMINATORS, kind, arguments)


def _built(known: Mapping[str, Callable[..., T]], kind: str, arguments: Mapping[str, Any]) -> T:
    if kind not in known:
        raise RecipeError(f"there is no net {kind!r}", nearest(kind, known))
    try:
        return known[kind](**arguments)
    except TypeError as error:
        raise RecipeError(f"net {kind}: {str(error)[:200]}", f"see trainers.nets.{kind}") from None
