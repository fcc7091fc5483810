"""What makes no sense in a recipe, seen from its numbers and names alone."""

from __future__ import annotations

from collections.abc import Iterator

from engines.bundle.tables import nearest
from trainers.data.degrade import Worsening
from trainers.recipes.recipe import SSIM_PX, Recipe, StageRecipe


def problems(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Each as (what is wrong, what would be right)."""
    known: list[str] = []
    if not recipe.stages or not recipe.shipping.stages or not recipe.sources:
        yield "it lacks sources, stages or shipping.stages", "a recipe has at least one of each"
    simulation = recipe.simulation
    if not (recipe.scale_hu > 0 and simulation.photons > 0 and simulation.fields >= 1):
        said = f"scale_hu {recipe.scale_hu:g}, photons {simulation.photons:g}, fields {simulation.fields}"
        yield f"it has {said}", "all above 0"
    if min(simulation.electronic, simulation.bow_tie, simulation.exposure, simulation.cutoff) < 0:
        yield "simulation has a number below 0", "electronic, bow_tie, exposure and cutoff are 0 or more"
    for source in recipe.sources:
        if not source.files:
            yield f"a source of {source.kind} names no files", "give paths below the folder of --images"
        if source.kind in ("dicom", "npz") and not source.provenance:
            yield f"a source of {source.kind} names no provenance", "every image needs its licence: name the table"
        if source.kind == "natural" and source.credit is None:
            yield "a source of photographs names no credit", "say who is to be named for them, on which licence"
    for stage in recipe.stages:
        if stage.name in known or not stage.name.replace("-", "").isalnum():
            yield f"a stage is called {stage.name!r}", "each has a name of its own, of letters, digits and '-'"
        for earlier in filter(None, (stage.takes, stage.starts_from)):
            if earlier not in known:
                yield f"{stage.name} builds on {earlier!r}, which no stage before it is", nearest(earlier, known)
        yield from _stage_problems(stage)
        yield from _drawing_problems(stage)
        yield from _loss_problems(stage)
        known.append(stage.name)
    for entry in recipe.shipping.stages:
        if entry.stage not in known:
            yield f"shipping names {entry.stage!r}", nearest(entry.stage, known)
    if not 0 < recipe.shipping.strength <= 1:
        yield f"shipping.strength is {recipe.shipping.strength}", "above 0, at most 1"
    if not any(entry.is_output for entry in recipe.shipping.stages):
        yield "nothing that is shipped leaves", "let the last of shipping.stages have is_output = true"


def _stage_problems(stage: StageRecipe) -> Iterator[tuple[str, str]]:
    if stage.steps < 1 or stage.patches.batch < 1 or stage.patches.size_px < 8:
        size = f"{stage.patches.batch} patches of {stage.patches.size_px} px"
        yield f"{stage.name} has {stage.steps} steps of {size}", "at least 1 step, 1 patch, 8 px"
    if stage.images == "natural" and stage.worsening is None:
        yield f"{stage.name} is given good images alone", "say in its worsening how they are made worse"
    if stage.folds == 1 or stage.folds < 0 or (stage.folds and not stage.takes):
        yield f"{stage.name}: folds is {stage.folds}", "2 or more, of a stage that takes another"
    if stage.growth and not stage.starts_from:
        yield f"{stage.name} grows from nothing", "name the stage it starts_from: its net chooses the first slices"
    if stage.growth and not (min(stage.growth.rounds, stage.growth.most, stage.growth.candidates) >= 1):
        yield f"{stage.name} grows by nothing", "growth: at least 1 of rounds, most and candidates"
    if stage.growth and not 0 < stage.growth.dose <= 1:
        yield f"{stage.name}: growth.dose is {stage.growth.dose}", "a share of the full dose, above 0, at most 1"
    for how in (stage.optimiser, *([stage.adversary.optimiser] if stage.adversary else [])):
        if not (how.learning_rate > 0 and how.weight_decay >= 0 and all(0 <= beta < 1 for beta in how.betas)):
            said = f"learning_rate {how.learning_rate:g}, betas {list(how.betas)}, weight_decay {how.weight_decay:g}"
            yield f"{stage.name}: an optimiser has {said}", "a rate above 0, betas of 0 to below 1, no decay below 0"
    if not 0 <= stage.ema_decay < 1:
        yield f"{stage.name}: ema_decay is {stage.ema_decay}", "0 to below 1"
    if stage.clip_norm < 0:
        yield f"{stage.name}: clip_norm is {stage.clip_norm:g}", "above 0, or 0 for none"
    if stage.adversary is not None and stage.adversary.critic_steps < 1:
        yield f"{stage.name}: critic_steps is {stage.adversary.critic_steps}", "at least 1"


def _drawing_problems(stage: StageRecipe) -> Iterator[tuple[str, str]]:
    patches, planting, texturing = stage.patches, stage.patches.planting, stage.patches.texturing
    if not 0 < stage.patches.doses[0] <= stage.patches.doses[1] <= 1:
        yield f"{stage.name}: doses are {list(stage.patches.doses)}", "shares of the full dose, above 0, at most 1"
    shares = (patches.full_dose_share, patches.tissue_share, planting.share, texturing.share)
    if not all(0 <= share <= 1 for share in shares) or planting.count < 0 or patches.neighbours < 0:
        yield f"{stage.name}: patches has a share, count or neighbours out of bounds", "shares of 0 to 1, counts from 0"
    bounds = {
        "planting.radius_mm": (planting.radius_mm, 0.0),
        "planting.contrast_hu": (planting.contrast_hu, 0.0),
        "planting.tissue_hu": (planting.tissue_hu, None),
        "planting.lung_hu": (planting.lung_hu, None),
        "texturing.cutoff": (texturing.cutoff, 0.0),
    }
    for name, ((low, high), least) in bounds.items():
        if low > high or (least is not None and low <= least):
            yield f"{stage.name}: patches.{name} is {[low, high]}", "the lowest first, and sizes above 0"
    if stage.worsening is not None:
        yield from _worsening_problems(stage.name, stage.worsening)


def _worsening_problems(name: str, worsening: Worsening) -> Iterator[tuple[str, str]]:
    least = {"shrink": 1.0, "blur_px": 0.0, "flatten": 1.0, "noise_grey": 0.0}
    for key, lowest in least.items():
        low, high = getattr(worsening, key)
        if not lowest <= low <= high:
            yield f"{name}: worsening.{key} is {[low, high]}", f"from {lowest:g}, the lowest first"
    if not worsening.grey_hu[0] < worsening.grey_hu[1]:
        yield f"{name}: worsening.grey_hu is {list(worsening.grey_hu)}", "the lowest first"


def _loss_problems(stage: StageRecipe) -> Iterator[tuple[str, str]]:
    if not stage.losses and stage.adversary is None:
        yield f"{stage.name} has no loss", "name at least one term"
    if len({term.kind for term in stage.losses}) < len(stage.losses):
        yield f"{stage.name} has two losses of one kind", "a term of each kind: their figures are noted by it"
    for term in stage.losses:
        if not term.unit_hu > 0 or term.weight < 0 or term.planted < 0:
            yield (
                f"{stage.name}: {term.kind} has a weight, unit_hu or planted out of bounds",
                "a unit above 0, none below 0",
            )
        if term.kind == "ssim" and stage.patches.size_px < SSIM_PX:
            yield f"{stage.name}: ssim of patches of {stage.patches.size_px} px", f"{SSIM_PX} px at least"
    windows = [term.window_hu for term in stage.losses] + ([stage.adversary.window_hu] if stage.adversary else [])
    if any(low >= high for low, high in windows):
        yield f"{stage.name}: a window_hu is empty", "the lowest first"
