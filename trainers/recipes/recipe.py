"""A recipe: everything that makes one published model, every number of it, in one TOML file.

A recipe has stages, trained one after another; a stage may take what an earlier one makes, or begin with its weights.
What a machine has (threads, devices, where images lie) is no part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from engines.card import Envelope, Limits, Operation, Precision
from trainers.data.cache import Simulation
from trainers.data.degrade import Worsening
from trainers.data.patches import Drawing
from trainers.data.series import Credit
from trainers.data.splits import Splits

Argument = float | int | str | bool

SSIM_PX: Final = 11
"""Rows and columns of the window that the term ssim compares by (Wang 2004)."""


@dataclass(frozen=True)
class NetChoice:
    """A net of `trainers.nets.NETS` by name.

    predicts  image: the net gives the image; residual: it gives what is subtracted from its input
    """

    kind: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    predicts: Literal["image", "residual"] = "image"


@dataclass(frozen=True)
class LossTerm:
    """One term of the generator's loss.

    unit_hu     mse, mae: HU that count as 1; a paper's grey level of a window W is W / 255
    window_hu   ssim, vgg: (lowest, highest) HU that become 0 and 1
    per_noise   mse, mae: each patch's error is in units of the noise of its input, so that all doses weigh alike
    planted     mse: how many times more a place counts where a nodule was planted; 0: as any other
    """

    kind: Literal["mse", "mae", "ssim", "vgg"]
    weight: float = 1.0
    unit_hu: float = 1000.0
    window_hu: tuple[float, float] = (-160.0, 240.0)
    per_noise: bool = False
    planted: float = 0.0


@dataclass(frozen=True)
class Optimiser:
    """Adam, or AdamW where weights decay.

    schedule      constant; cosine: down to `final_share` of the rate at the last step
    warmup_steps  the rate grows from 0 in so many
    """

    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    final_share: float = 0.01
    warmup_steps: int = 0


@dataclass(frozen=True)
class Adversary:
    """A discriminator, and how the two nets play.

    kind          lsgan: least squares to 1 and 0; standard: cross entropy of logits
    weight        of the adversarial term in the generator's loss
    critic_steps  of the discriminator for one of the generator, each on patches of its own
    conditioned   it sees the generator's input as a second channel
    real_label    what it is to say of a real image: 0.9 is one-sided smoothing
    window_hu     (lowest, highest) HU that it sees as 0 and 1; values beyond go on
    """

    kind: Literal["lsgan", "standard"]
    net: str
    optimiser: Optimiser
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    weight: float = 1.0
    critic_steps: int = 1
    conditioned: bool = False
    real_label: float = 1.0
    window_hu: tuple[float, float] = (-160.0, 240.0)


@dataclass(frozen=True)
class Growth:
    """Training on CT in growing numbers, as the stacked GANs' paper does, with a criterion in place of its eyes.

    A round looks at `candidates` slices that are not yet in use, lets the net of the round before have them at `dose`,
    and takes in at most `most` that came nearer to the full dose by at least `gain_db`, with no tissue moved away from
    it by more than `bias_hu` and edges kept to `edge_modulation`, or no worse than they were given. Only what lies in
    -160 to 240 HU counts. It ends when a round finds none, or after `rounds`; where the first finds none is an error.
    """

    rounds: int
    most: int = 1000
    candidates: int = 4000
    dose: float = 0.25
    gain_db: float = 0.1
    bias_hu: float = 2.0
    edge_modulation: tuple[float, float] = (0.75, 1.25)


@dataclass(frozen=True)
class StageRecipe:
    """One net, trained on one kind of patches.

    takes            the earlier stage whose image goes in; "": the low-dose or worsened image itself
    starts_from      the earlier stage whose weights this one begins with; "": random weights
    images           ct, or natural: photographs, which `worsening` says how to make worse
    patches          how patches are drawn; of natural images its batch and size alone count
    worsening        of ct: the input is made worse than the full dose by this as well
    folds            of a stage that takes another: its input is made by nets that never saw the patient, trained on
                     so many parts of the patients; 0: by the net that saw them all
    ema_decay        of the averaged weights that are shipped; 0: the last ones are
    clip_norm        largest norm of the generator's gradient; 0: not clipped
    precision        float32, or bfloat16 or float16 where autocast allows it; weights stay in float32. With float16
                     losses are scaled, for what is small would vanish; a step that overflows is left out
    """

    name: str
    net: NetChoice
    losses: tuple[LossTerm, ...]
    optimiser: Optimiser
    steps: int
    images: Literal["ct", "natural"] = "ct"
    patches: Drawing = field(default_factory=Drawing)
    worsening: Worsening | None = None
    adversary: Adversary | None = None
    growth: Growth | None = None
    takes: str = ""
    starts_from: str = ""
    folds: int = 0
    ema_decay: float = 0.0
    clip_norm: float = 0.0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    checkpoint_steps: int = 500
    sample_steps: int = 1000
    log_steps: int = 50


@dataclass(frozen=True)
class SourceChoice:
    """Images of one layout (`trainers.data.sources`).

    files       paths below the folder that `--images` names; * and ? stand for any characters and for one
    provenance  dicom, npz: the table of licences and attributions, below that folder too
    credit      natural: who is to be named for all of its photographs; mayo and deeplesion have their own
    """

    kind: Literal["dicom", "npz", "mayo", "deeplesion", "natural"]
    files: tuple[str, ...]
    provenance: str = ""
    credit: Credit | None = None


@dataclass(frozen=True)
class ShippedStage:
    """A stage of the recipe that becomes a network of the bundle, and what its image is called there.

    is_output     it leaves; else only later stages take it
    presentation  for the eye only: 0...4095 with HU + 1024, never stored as HU
    """

    stage: str
    target: str = "image"
    is_output: bool = True
    presentation: bool = False


@dataclass(frozen=True)
class Shipping:
    """What the bundle's card says beside what follows from the nets.

    storage  of the weights in the ONNX files; float16 only where it passes the parity test
    regions  the bundle takes a person's marks: squares of twice their long axis, in place of whole slices
    strength default of the engine's setting: the share of what the nets take away that is taken away
    """

    operation: Operation
    intended_use: str
    stages: tuple[ShippedStage, ...]
    licence: str
    maker: str
    envelope: Envelope = field(default_factory=Envelope)
    limits: Limits = field(default_factory=Limits)
    precisions: tuple[Precision, ...] = ("float32",)
    storage: Literal["float32", "float16"] = "float32"
    limitations: tuple[str, ...] = ()
    regions: bool = False
    strength: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """A published model.

    paper       what it follows, and how gaps and slips were settled
    patients    who is trained on, chosen by and tested on; who is in none is left out
    simulation  how the noise of lower doses is made
    scale_hu    nets see HU / scale_hu
    """

    format: int
    name: str
    version: str
    paper: str
    sources: tuple[SourceChoice, ...]
    stages: tuple[StageRecipe, ...]
    shipping: Shipping
    patients: Splits = field(default_factory=lambda: Splits(("*",)))
    simulation: Simulation = field(default_factory=Simulation)
    seed: int = 1
    scale_hu: float = 1000.0

    @property
    def wants_features(self) -> bool:
        """Whether a term compares features of VGG, whose weights are brought (--features)."""
        return any(term.kind == "vgg" for stage in self.stages for term in stage.losses)

    def stage(self, name: str) -> StageRecipe:
        return next(stage for stage in self.stages if stage.name == name)

    def before(self, stage: StageRecipe) -> tuple[StageRecipe, ...]:
        """The stages whose images go into a stage, the first of them first."""
        if not stage.takes:
            return ()
        taken = self.stage(stage.takes)
        return (*self.before(taken), taken)


OFF: Final = "off"


@dataclass(frozen=True)
class Plan:
    """What a run does otherwise than its recipe says (`trainers.recipes.plan`), and with what it was given.

    share     of every stage's steps
    changes   of single numbers of stages, each as STAGE.KEY=VALUE; a stage whose steps are changed keeps those
    features  SHA-256 of the weights that the term vgg compares by; "off": none were given; "": no stage has that term,
              or nobody noted it
    """

    share: float = 1.0
    changes: tuple[str, ...] = ()
    features: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether every step is done as the recipe says."""
        return self.share == 1 and not self.changes

    @property
    def options(self) -> tuple[str, ...]:
        """Those of `trainers train`."""
        share = ("--share", f"{self.share:g}") if self.share < 1 else ()
        features = ("--features", "VGG") if self.features not in ("", OFF) else ()
        return (*share, *(word for change in self.changes for word in ("--set", change)), *features)

    def __str__(self) -> str:
        share = f"{100 * self.share:.3g} % of the steps" if self.share < 1 else "all steps"
        vgg = (
            f"the term vgg {OFF if self.features == OFF else f'by weights {self.features[:16]}'}"
            if self.features
            else ""
        )
        return ", ".join(filter(None, (share, *self.changes, vgg)))


AS_WRITTEN: Final = Plan()
