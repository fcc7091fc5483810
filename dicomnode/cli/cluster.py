"""cluster: the machines that share an index."""

from __future__ import annotations

from typing import Annotated

import typer

from dicomnode.cli.console import OK, ConfigOption, JsonOption, configured, need_command, show

cluster_app = typer.Typer(
    help="Cluster: the machines that share an index.", callback=need_command, invoke_without_command=True
)


@cluster_app.command("status")
def status(config: ConfigOption = None, as_json: JsonOption = False) -> int:
    """Tell which machines run. Their roles and versions, what waits for whom, and whose work was taken over."""
    from dicomnode.operations.cluster import cluster_status

    show(cluster_status(configured(config, rules_matter=False)), as_json)
    return OK


@cluster_app.command("forget")
def forget(
    machine: Annotated[str, typer.Argument(metavar="MACHINE", help="Its node.name.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Forget a machine that will not come back. Its work is others' already; it is no more told of as dead."""
    from dicomnode.operations.cluster import forget as do

    show(do(configured(config, rules_matter=False), machine), as_json)
    return OK
