"""Arguments that are paths inside a CIM, or hives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class InnerPath(click.ParamType):  # type: ignore[type-arg]  # which takes none before click 8.4
    """A path inside the CIM that the argument ``image`` names; a shell completes it from there."""

    name = "path in the CIM"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As it is."""
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        """The entries that begin with what is typed."""
        from cimlayer.cli.completing import inner_paths  # noqa: PLC0415

        return inner_paths(ctx.params.get("image"), incomplete)


class HiveName(InnerPath):
    """The name of a hive of the CIM or layer that the argument ``source`` names; a shell completes it from there."""

    name = "hive"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        """The hives that begin with what is typed; keys are not completed."""
        from cimlayer.cli.completing import hive_names  # noqa: PLC0415

        if ctx.params.get("names"):
            return []
        return hive_names(ctx.params.get("source"), incomplete)


INNER_PATH = InnerPath()
HIVE_NAME = HiveName()
