"""From a recipe's sources to what is drawn from, and to what its card must say of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engines.bundle.provenance import Dataset, Role
from trainers.data.cache import Cache, Each
from trainers.data.patches import Noisy
from trainers.data.provenance import Provenance, read_provenance
from trainers.data.series import Credit, PairedSeries, Picture, Series
from trainers.data.sources.deeplesion import read_deeplesion, read_lesions
from trainers.data.sources.dicom import read_dicom
from trainers.data.sources.mayo import read_mayo
from trainers.data.sources.natural import read_natural
from trainers.data.sources.volumes import read_volumes
from trainers.data.splits import Name, require_apart, split
from trainers.errors import RecipeError, SourceError
from trainers.progress import Count, Pace, Say
from trainers.recipes.recipe import Recipe, SourceChoice
from trainers.training.pairs import Material

Image = Series | PairedSeries | Picture

_LONGEST = 2000
_DEEPLESION_IMAGES, _DEEPLESION_TABLE = "Images_png", "DL_info.csv"


@dataclass(frozen=True, eq=False)
class Gathered:
    """What a recipe is trained on, and who is to be named for it.

    digests  of each series with its patient, and of each photograph, that patches are drawn from; in their order
    """

    material: Material
    datasets: tuple[Dataset, ...]
    digests: tuple[str, ...]


def gather(recipe: Recipe, images: Path, cache: Path, say: Say = lambda line: None) -> Gathered:
    """Read a recipe's sources below `images`; HU and noise fields are kept in `cache`, one series at a time in memory.

    Raises SourceError where images cannot be read, are of unknown licence, or a patient is in two splits.
    """
    kept = Cache(cache, recipe.simulation)
    pictures: list[Picture] = []
    known: list[Series] = []  # of everybody, without their pixels

    def to_be_used() -> Iterator[Series | PairedSeries]:
        for one in read_images(recipe, images, say):
            if isinstance(one, Picture):
                pictures.append(kept.picture(one))
                continue
            full = one.full if isinstance(one, PairedSeries) else one
            known.append(replace(full, hu=full.hu[:0]))
            if set(recipe.patients.of(full.patient)) & {"train", "validation"}:
                yield one

    def counted(slices: int) -> Each:
        split(known, recipe.patients)  # of everybody: it refuses what cannot be parted, before noise takes its time
        return noise_counted(say)(slices)

    noisy = kept.all_noisy(to_be_used(), counted)
    train, validation = (_of_split(noisy, recipe, name) for name in ("train", "validation"))
    require_apart({"train": (one.series for one in train), "validation": (one.series for one in validation)})
    pools: dict[Role, Sequence[Noisy]] = {"training": train, "validation": validation}
    return Gathered(Material(train, validation, tuple(pictures)), datasets(pools, pictures), _digests(train, pictures))


def noise_counted(say: Say) -> Callable[[int], Each]:
    """For `Cache.all_noisy`: says how much noise has to be simulated, and how far that is."""

    def counted(slices: int) -> Each:
        say(f"noise: slices to be simulated: {slices}" if slices else "noise: all of it is in the cache")
        return Count("noise", Pace(slices, 0, of="slice"), say).another

    return counted


def _digests(train: Iterable[Noisy], pictures: Iterable[Picture]) -> tuple[str, ...]:
    ct = (f"{one.digest} {one.series.patient}" for one in train)
    return tuple(hashlib.sha256(one.encode()).hexdigest()[:16] for one in (*ct, *(one.digest for one in pictures)))


def _of_split(noisy: Iterable[Noisy], recipe: Recipe, name: Name) -> tuple[Noisy, ...]:
    return tuple(one for one in noisy if name in recipe.patients.of(one.series.patient))


def read_images(recipe: Recipe, images: Path, say: Say) -> Iterator[Image]:
    """The images of all sources, and how far the reading is."""
    files = sum(len(files_of(source, images)) for source in recipe.sources)
    count, found = Count("images", Pace(files, 0, of="file"), say), 0
    for source in recipe.sources:
        for one in read_source(source, images, count.another):
            found += 1
            count.note(f"{found} series and photographs")
            yield one


def files_of(source: SourceChoice, images: Path) -> list[Path]:
    """The files and folders that a source names. Raises SourceError where one of its names has none, RecipeError where
    it cannot be read as paths below `images`."""
    try:
        found = {pattern: list(images.glob(pattern)) for pattern in source.files}
    except (NotImplementedError, ValueError):
        raise RecipeError(
            f"{source.files[0]!r} is no path below the folder of images", "give it without / before it"
        ) from None
    for pattern, paths in found.items():
        if not paths:
            raise SourceError(
                f"nothing below {images} is named {pattern}",
                "--images is the folder that the recipe's sources lie below; other images want a recipe of your own: "
                "docs/trainers/recipes.md",
            )
    return sorted(path for paths in found.values() for path in paths)


def read_source(source: SourceChoice, images: Path, each: Callable[[], None] = lambda: None) -> Iterator[Image]:
    """The images of one source, named by their paths below `images`; `each` is called after each of its files.

    Raises SourceError where there are none.
    """
    needs_table = source.kind in ("dicom", "npz")
    provenance = read_provenance(images / source.provenance) if needs_table else None
    for file in files_of(source, images):
        place = file.relative_to(images)
        above = place.parent if needs_table else place  # npz and DICOM: their names begin with the file's own
        for one in _images(source, file, provenance):
            yield _renamed(one, above)
        each()


def _renamed(one: Image, above: Path) -> Image:
    """The same, named by where it lies: files of many folders are called alike."""
    if isinstance(one, PairedSeries):
        return replace(one, full=replace(one.full, name=(above / one.full.name).as_posix()))
    return replace(one, name=(above / one.name).as_posix())


def _images(source: SourceChoice, file: Path, provenance: Provenance | None) -> Iterator[Image]:
    if provenance is not None:
        return read_dicom([file], provenance) if source.kind == "dicom" else read_volumes([file], provenance)
    if source.kind == "mayo":
        return read_mayo(file)
    if source.kind == "deeplesion":
        return read_deeplesion(file / _DEEPLESION_IMAGES, read_lesions(file / _DEEPLESION_TABLE))
    assert source.credit is not None
    return read_natural(file, source.credit)


def datasets(pools: Mapping[Role, Iterable[Noisy]], pictures: Iterable[Picture] = ()) -> tuple[Dataset, ...]:
    """A card's data, a row for each collection and role, with all that its licences ask to be said.

    pictures  photographs: to learn from
    """
    rows: dict[tuple[str, str, Role], tuple[list[Credit], set[str]]] = {}
    named: list[tuple[Role, Credit, str]] = [
        (role, noisy.series.credit, noisy.series.patient) for role, pool in pools.items() for noisy in pool
    ]
    named += [("training", picture.credit, "") for picture in pictures]
    for role, credit, patient in named:
        credits, patients = rows.setdefault((credit.collection, credit.licence, role), ([], set()))
        credits.append(credit)
        patients.update([patient] if patient else [])
    return tuple(
        Dataset(
            name=collection,
            licence=licence,
            attribution=_together(credit.attribution for credit in credits),
            role=role,
            patients=len(patients),
            source=_together(credit.source for credit in credits),
        )
        for (collection, licence, role), (credits, patients) in rows.items()
    )


def _together(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(filter(None, texts)))[:_LONGEST]
