"""engines check: is a bundle whole, who vouches for it, and does this machine compute what its maker's did?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dicomnode.config import Config
from dicomnode.errors import UsageError
from dicomnode.operations.engines import registry_of
from dicomnode.operations.terminal import printable_lines
from engines.bundle import folder as bundles
from engines.bundle import signing
from engines.bundle.folder import Bundle
from engines.bundle.golden import Difference, Golden, compare
from engines.bundle.tables import nearest
from engines.card import Precision
from engines.errors import EngineError
from engines.model.engine import ModelEngine
from engines.runtimes import choice
from engines.runtimes.base import Resources, Runtime, Session
from engines.runtimes.devices import devices


@dataclass(frozen=True)
class Trial:
    """The golden test in one runtime: passed, failed, or not run, and what was found."""

    runtime: str
    device: str
    precision: str
    state: str
    found: str
    seconds: float = 0.0

    def line(self) -> str:
        took = f" in {self.seconds:.1f} s" if self.state != "not run" else ""
        what = " ".join(filter(None, (self.runtime, self.precision, f"on {self.device}")))
        return f"golden test, {what}: {self.state}{took}: {self.found}"


@dataclass(frozen=True)
class Checked:
    """`signed_by`: fingerprint of the trusted key; `signature` says in words how it stands with it."""

    engine: str
    digest: str
    signed_by: str
    signature: str
    trials: tuple[Trial, ...]

    @property
    def passed(self) -> bool:
        """Some runtime here computes it, and none of those that do gives anything else."""
        states = {trial.state for trial in self.trials}
        return "passed" in states and "failed" not in states

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}

    def lines(self) -> Sequence[str]:
        return printable_lines(
            (
                f"{self.engine}: all files are as digested ({self.digest[:16]}), its networks are what the card says",
                f"signature: {self.signature}",
                *(trial.line() for trial in self.trials),
            )
        )


def check_engine(config: Config | None, what: str, runtime: str = choice.AUTO) -> Checked:
    """Check the bundle in a folder, or an installed one by `name` or `name@version`; `runtime`: in that one alone.

    Raises BundleError where it is damaged, EngineNotFoundError, UsageError where it is no bundle.
    """
    bundle = bundle_of(config, what)
    trusted = () if config is None else tuple(map(signing.read_public_key, config.engines.trusted_keys))
    return check_bundle(bundle, signing.vouched(bundle.digest, bundle.signature, trusted), runtime)


def check_bundle(bundle: Bundle, signed_by: str, runtime: str = choice.AUTO) -> Checked:
    """Everything that can be found out about a bundle on this machine. Raises BundleError where it is damaged.

    signed_by  fingerprint of the trusted key that vouches for it, or ""
    """
    bundles.check_networks(bundle)
    test = bundles.golden(bundle)
    known = choice.onnx_runtimes()
    wanted = [one for one in known if runtime in (choice.AUTO, one.name)]
    if not wanted:
        raise UsageError(f"there is no runtime {runtime!r}", nearest(runtime, [one.name for one in known]))
    trials = tuple(trial for one in wanted for device in devices() for trial in _trials(bundle, test, one, device))
    return Checked(bundle.card.reference, bundle.digest, signed_by, _in_words(bundle, signed_by), trials)


def bundle_of(config: Config | None, what: str) -> Bundle:
    """The bundle in a folder, or the installed one of that reference; raises as `check_engine`."""
    if Path(what).is_dir():
        return bundles.load_bundle(Path(what))
    bundle = registry_of(config).bundle(what)
    if bundle is None:
        raise UsageError(f"{what} is no bundle", "it comes with the node, and needs no check")
    return bundle


def _in_words(bundle: Bundle, signed_by: str) -> str:
    if signed_by:
        return f"by {signed_by}, which is trusted here"
    if bundle.signature is None:
        return "none"
    return f"by {bundle.signature.fingerprint}, which is not trusted here"


def _trials(bundle: Bundle, test: Golden, runtime: Runtime, device: str) -> Iterator[Trial]:
    missing = runtime.unavailable(device)
    if missing:
        yield Trial(runtime.name, device, "", "not run", missing)
        return
    for precision in runtime.precisions(device):
        if precision in bundle.card.precisions:
            yield _trial(bundle, test, runtime, Resources(device, precision=precision))


def _trial(bundle: Bundle, test: Golden, runtime: Runtime, resources: Resources) -> Trial:
    began = time.monotonic()
    try:
        differences = _differences(bundle, test, lambda path: runtime.open(path, resources), resources.precision)
    except EngineError as error:
        passed, found = False, str(error)
    else:
        passed, found = all(one.passed for one in differences), "; ".join(map(str, differences))
    state = "passed" if passed else "failed"
    return Trial(runtime.name, resources.device, resources.precision, state, found, time.monotonic() - began)


def _differences(
    bundle: Bundle, test: Golden, opener: Callable[[Path], Session], precision: Precision
) -> Sequence[Difference]:
    engine = ModelEngine.open(bundle, opener)
    try:
        return compare(test, precision, engine.run(test.inputs, engine.card.resolve(test.settings)))
    finally:
        engine.close()
