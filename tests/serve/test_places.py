"""Which processes a machine runs for the roles that it is to have."""

from __future__ import annotations

import pytest

from dicomnode.errors import UsageError
from dicomnode.serve.places import PROCESSES, places

FLOW = ("route", "enhance", "derive")


@pytest.mark.parametrize(
    ("only", "names"),
    [
        (None, ("receive-1", "receive-2", "deliver", "retrieve", "flow")),
        ((), ("receive-1", "receive-2", "deliver", "retrieve", "flow")),
        (("receive",), ("receive-1", "receive-2")),
        (("deliver", "receive"), ("receive-1", "receive-2", "deliver")),
        (("deliver,receive",), ("receive-1", "receive-2", "deliver")),
        (("route", "enhance, derive"), ("flow",)),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_roles_are_run_by_processes(only: tuple[str, ...] | None, names: tuple[str, ...], apart: bool) -> None:
    found = places(only, receivers=2, apart=apart)
    assert tuple(place.name for place in found) == names
    assert all(place.roles == PROCESSES[place.name.partition("-")[0]] for place in found)


@pytest.mark.parametrize(
    ("only", "roles"),
    [("enhance", ("enhance",)), ("derive,route", ("route", "derive")), ("route,enhance,derive", FLOW)],
)
def test_with_a_server_each_role_of_flow_may_be_alone(only: str, roles: tuple[str, ...]) -> None:
    (flow,) = places([only], receivers=2, apart=True)
    assert (flow.name, flow.roles) == ("flow", roles)


@pytest.mark.parametrize(
    ("only", "what"),
    [("recieve", "no role 'recieve'"), ("web", "no role 'web'"), ("enhance", "without route, derive")],
)
def test_roles_that_cannot_be_run_are_refused_with_a_hint(only: str, what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        places([only], receivers=1, apart=False)
    assert caught.value.hint
