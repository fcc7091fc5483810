"""What each denoiser does to low-dose CT: a few figures on slices of the phantom, the same in every run."""

from __future__ import annotations

from typing import Final

from bench.results import Results
from bench.rounds import Surroundings
from dicomnode.testing.bundles import opened
from engines.registry import default_registry

_FIGURES: Final = ("PSNR abdomen", "SSIM abdomen", "bias soft tissue", "moderate edges wider")


def run(surroundings: Surroundings, results: Results) -> None:
    """Every engine that denoises, at a quarter and a tenth of the dose; simulated noise, no patient. Facts."""
    # here, so that torch lies in the memory of no other part
    from trainers.evaluate.aims import gain
    from trainers.evaluate.denoisers import LOW_DOSE, of_engine
    from trainers.evaluate.quick import quick_table

    registry = default_registry(opener=opened)
    engines = [engine for engine in map(registry.get, registry.names()) if engine.card.operation == "denoise"]
    denoisers = [one for engine in engines for one in of_engine(engine, engine.card.name, "ours")]
    table = quick_table(denoisers, print)
    for dose in table.doses:
        for engine in engines:
            name = engine.card.name
            for figure in _FIGURES:
                found = table.against(figure, (name, LOW_DOSE.name), dose, gain)
                results.facts[f"{name}, {100 * dose:g} % dose: {figure}, gain over the input"] = found.value
