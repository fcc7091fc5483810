"""What the deliver process asks destinations about patient and study with."""

from __future__ import annotations

from dicomnode.config import Config
from dicomnode.flow.checking import CheckRoute
from dicomnode.serve.prove import proof_routes


def check_routes(config: Config) -> list[CheckRoute]:
    """One for each destination that is to be asked; called as it is for proof."""
    return [
        CheckRoute(
            route.name,
            route.address,
            route.calling_ae,
            config.destination[route.name].check_patient == "if-possible",
            route.opening,
        )
        for route in proof_routes(config)
        if config.destination[route.name].check_patient
    ]
