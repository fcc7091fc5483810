"""What is said in log and metrics of deliveries. What a person must look at is said once in each outage."""

from __future__ import annotations

from typing import Final

from dicomnode import metrics
from dicomnode.core.types import Receipt
from dicomnode.errors import PeerError
from dicomnode.store.schema import Instance, OutboxState
from dicomnode.telemetry import event

_TOLD_AS: Final = {
    OutboxState.SENT: "delivery_sent",
    OutboxState.FAILED: "delivery_failed",
    OutboxState.EXCLUDED: "delivery_excluded",
}


def tell_answer(destination: str, receipt: Receipt, instance: Instance, state: OutboxState) -> None:
    """What a destination answered to one instance, and what follows from it."""
    metrics.count("dicomnode_deliveries_total", destination=destination, outcome=receipt.outcome.value)
    why = {} if state == OutboxState.SENT else {"reason": receipt.meaning, "hint": receipt.hint}
    name = _TOLD_AS.get(state, "delivery_refused")
    event(
        name,
        outbox_id=receipt.outbox_id,
        destination=destination,
        sop_instance_uid=instance.sop_instance_uid,
        status=receipt.status,
        **why,
    )


def tell_failure(destination: str, address: str, error: PeerError, failures: int, retry_s: float) -> None:
    """A destination failed as a whole: the first time in a row is an alert, the others are not."""
    metrics.count("dicomnode_destination_failures_total", destination=destination)
    name = "destination_down" if failures == 1 else "destination_still_down"
    event(
        name,
        destination=destination,
        address=address,
        attempt=failures,
        retry_s=retry_s,
        error=type(error).__name__,
        reason=str(error),
        hint=error.hint,
    )


def tell_up(destination: str, address: str, seconds: float) -> None:
    """A destination answers again."""
    event("destination_up", destination=destination, address=address, seconds=seconds)


def tell_held(destination: str, instances: int, *, is_first: bool) -> None:
    """Deliveries were not taken within the patience. Once in an outage it is an alert."""
    metrics.count("dicomnode_deliveries_total", instances, destination=destination, outcome="given_up")
    if is_first:
        event(
            "delivery_held",
            destination=destination,
            instances=instances,
            reason="not taken within the destination's patience; others may follow",
            hint=f"once it is up again: dicomnode jobs retry --failed --to {destination}",
        )
