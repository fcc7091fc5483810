"""The steps of a closed series: plan, enhance, derive. Each is idempotent, and leaves its result in our own tables.

plan     headers of its instances -> stacks -> rules -> plan and jobs            planning
enhance  a job's stack -> volume -> gates and engines -> result at rest          enhancing, computing, reusing
derive   result and sources -> derived objects -> file store, index and outbox   deriving, storing, dispatching
"""

from __future__ import annotations

from dicomnode.core.routing import Routing
from dicomnode.flow.deriving import Deriver, Deriving
from dicomnode.flow.dispatching import Dispatcher
from dicomnode.flow.enhancing import Enhancer
from dicomnode.flow.planning import Planner
from dicomnode.flow.reusing import FormerJobs
from dicomnode.flow.rooms import Rooms


class Pipeline:
    """The steps. `routing` and `deriving` are replaced at a reload; the steps ask for them where they need them."""

    def __init__(self, rooms: Rooms, routing: Routing, deriving: Deriving) -> None:
        self.routing = routing
        self.deriving = deriving
        dispatcher = Dispatcher(lambda: self.routing)
        self._planner = Planner(rooms, lambda: self.routing)
        self._enhancer = Enhancer(rooms, FormerJobs(rooms, dispatcher))
        self._deriver = Deriver(rooms, self._enhancer, dispatcher, lambda: self.deriving)

    def plan(self, series_row: int, generation: int) -> list[list[int]]:
        """Apply the rules to a closed series; (job row, priority) of each job that follows from it."""
        return self._planner.plan(series_row, generation)

    def fail_plan(self, series_row: int, generation: int, reason: str) -> None:
        """Record that no plan could be made."""
        self._planner.fail(series_row, generation, reason)

    def enhance(self, job_row: int) -> bool:
        """Run a job's engines; whether there is a result to derive from."""
        return self._enhancer.enhance(job_row)

    def derive(self, job_row: int) -> None:
        """Build, store and enqueue a job's derived objects."""
        self._deriver.derive(job_row)

    def fail(self, job_row: int, reason: str, hint: str) -> None:
        """End a job that cannot be done. What a person decided of its result is void: somebody is to look again."""
        self._enhancer.fail(job_row, reason, hint)
