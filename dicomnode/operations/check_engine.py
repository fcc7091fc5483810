"""engines check: is a bundle whole, who vouches for it, and does this machine compute what its maker's did?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from dicomnode.config import Config
from dicomnode.errors import DicomNodeError, EngineError, UsageError
from dicomnode.inference import proving
from dicomnode.operations.engines import registry_of
from dicomnode.operations.terminal import printable_lines
from dicomnode.settings import LimitSettings
from dicomnode.workers import WorkerProcess
from engines.bundle import folder as bundles
from engines.bundle import signing
from engines.bundle.folder import Bundle
from engines.bundle.installed import BundleSource
from engines.bundle.tables import nearest
from engines.making import judge_reach
from engines.runtimes import choice
from engines.runtimes.base import Runtime
from engines.runtimes.devices import CPU, devices

_TRIAL_TIMEOUT_S: Final = 600.0
_COMES_ALONG: Final = "none is needed: it comes with the node, and is trusted as its code is"


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
    """`signed_by`: fingerprint of the trusted key; `signature` says in words how it stands with it. `warnings`: what
    may show in images though everything passes."""

    engine: str
    digest: str
    signed_by: str
    signature: str
    trials: tuple[Trial, ...]
    warnings: tuple[str, ...] = ()

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
                f"{self.engine}: all files are as digested ({self.digest}), its networks are what the card says",
                f"signature: {self.signature}",
                *(trial.line() for trial in self.trials),
                *(f"warning: {warning}" for warning in self.warnings),
            )
        )


def check_engine(config: Config | None, what: str, runtime: str = choice.AUTO) -> Checked:
    """Check the bundle in a folder, or an installed one by `name` or `name@version`; `runtime`: in that one alone.

    Raises BundleError where it is damaged, EngineNotFoundError, UsageError where it is no bundle.
    """
    registry, bundle = registry_of(config), bundle_of(config, what)
    trusted = () if config is None else tuple(map(signing.read_public_key, config.engines.trusted_keys))
    signed_by = signing.vouched(bundle.digest, bundle.signature, trusted)
    checked = check_bundle(bundle, signed_by, LimitSettings() if config is None else config.limits, runtime)
    along = registry.shipped_bundle(bundle.card.name, bundle.card.version)
    is_ours = along is not None and along.digest == bundle.digest
    return replace(checked, signature=_COMES_ALONG) if is_ours and not signed_by else checked


def check_bundle(bundle: Bundle, signed_by: str, limits: LimitSettings, runtime: str = choice.AUTO) -> Checked:
    """Everything that can be found out about a bundle on this machine. Raises BundleError where it is damaged.

    signed_by  fingerprint of the trusted key that vouches for it, or ""
    limits     the memory of the processes that try it: nobody knows yet what it asks for
    """
    bundles.check_networks(bundle)
    bundles.golden(bundle)
    known = choice.onnx_runtimes()
    wanted = [one for one in known if runtime in (choice.AUTO, one.name)]
    if not wanted:
        raise UsageError(f"there is no runtime {runtime!r}", nearest(runtime, [one.name for one in known]))
    trials = tuple(trial for device in devices() for trial in _trials(bundle, wanted, device, limits))
    signature, warnings = _in_words(bundle, signed_by), tuple(_warnings(bundle))
    return Checked(bundle.card.reference, bundle.digest, signed_by, signature, trials, warnings)


def _warnings(bundle: Bundle) -> Iterator[str]:
    """Where slices that are cut into tiles would show seams."""
    for stage in bundle.card.stages if not bundle.card.method else ():
        problem, sentence = judge_reach(bundle.card, stage, bundles.network_of(bundle.folder, stage))
        if problem:
            yield f"{sentence}; its maker should {problem}"


def bundle_of(config: Config | None, what: str) -> Bundle:
    """The bundle in a folder, or the installed one of that reference; raises as `check_engine`."""
    if Path(what).is_dir():
        return bundles.load_bundle(Path(what))
    bundle = registry_of(config).bundle(what)
    if bundle is None:
        raise UsageError(
            f"{what} is no bundle", "it comes with the node: it has no files, and nothing to check, sign or export"
        )
    return bundle


def _in_words(bundle: Bundle, signed_by: str) -> str:
    if signed_by:
        return f"by {signed_by}, which is trusted here"
    if bundle.signature is None:
        return "none"
    return f"by {bundle.signature.fingerprint}, which is not trusted here"


def _trials(bundle: Bundle, runtimes: Sequence[Runtime], device: str, limits: LimitSettings) -> Iterator[Trial]:
    """In one process for each device. Its memory is what an engine process has: on a GPU the driver maps more of its
    address space than there is memory, and none can be set."""
    memory_bytes = limits.worker_memory_mb << 20 if device == CPU else None
    with closing(WorkerProcess(proving.MODULE, memory_bytes)) as worker:
        for runtime in runtimes:
            missing = runtime.unavailable(device)
            if missing:
                yield Trial(runtime.name, device, "", "not run", missing)
                continue
            for precision in runtime.precisions(device):
                if precision in bundle.card.precisions:
                    given = {"runtime": runtime.name, "device": device, "precision": precision}
                    yield _trial(worker, bundle, given)


def _trial(worker: WorkerProcess, bundle: Bundle, given: Mapping[str, str]) -> Trial:
    source = str(BundleSource(bundle.digest, bundle.folder.absolute()))
    began = time.monotonic()
    try:
        answer = worker.call("try_bundle", _TRIAL_TIMEOUT_S, bundle=source, **given)
    except (DicomNodeError, EngineError) as error:
        answer = {"passed": False, "found": "; ".join(filter(None, (str(error), error.hint)))}
    state = "passed" if answer["passed"] else "failed"
    return Trial(**given, state=state, found=answer["found"], seconds=time.monotonic() - began)
