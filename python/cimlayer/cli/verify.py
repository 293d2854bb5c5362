"""``cimlayer verify``."""

from __future__ import annotations

from collections.abc import Iterator

import click

from cimfs_ext.entries import ImageEntry, VerifyReport
from cimfs_ext.reader import ImageReader
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image
from cimlayer.cli.output import Output, amount, counted
from cimlayer.errors import CorruptImageError
from cimlayer.image.entrynames import shown

_SHOWN_PATHS = 10


@click.command("verify")
@click.argument("image", metavar="CIM", type=HOST_PATH)
@click.option("as_json", "--json", is_flag=True, help="Print one JSON object with all problems and paths.")
@click.pass_context
def command(ctx: click.Context, image: str, as_json: bool) -> None:
    """Verify the integrity of a CIM.

    Reads every table and object and compares content with its content ID. Objects written by Windows have IDs that
    only Windows can compute; they are counted as not compared. Problems are listed with the files that they affect,
    and the exit code is 1.
    """
    output = Output()
    with open_image(image) as reader:
        report = reader.verify()
        paths = _affected_paths(reader, report)
    if as_json:
        output.json(_facts(report, paths))
    else:
        _print(output, report, paths)
    if not report.ok:
        ctx.exit(1)


def _affected_paths(reader: ImageReader, report: VerifyReport) -> dict[int, list[str]]:
    """The paths that refer to each damaged region offset; a CIM without damage is not walked."""
    offsets_at_fault = {problem.region_offset for problem in report.problems} - {0}
    paths: dict[int, list[str]] = {offset: [] for offset in offsets_at_fault}
    if paths:
        for path, offsets in _references(reader):
            for offset in offsets & paths.keys():
                paths[offset].append(shown(path))
    return paths


def _references(reader: ImageReader) -> Iterator[tuple[str, set[int]]]:
    """The region offsets that each path refers to, as far as the damaged CIM can be read."""
    pending: list[tuple[str, str | ImageEntry]] = [("", "")]
    seen: set[int] = set()
    while pending:
        path, target = pending.pop()
        try:
            yield path, reader.object_offsets(target)
            if isinstance(target, ImageEntry):
                if not target.is_directory or target.file_id in seen:
                    continue
                seen.add(target.file_id)
            children = reader.listdir(target)
        except CorruptImageError:
            continue
        above = f"{path}\\" if path else ""
        pending.extend((above + child.name, child) for child in reversed(children))


def _facts(report: VerifyReport, paths: dict[int, list[str]]) -> dict[str, object]:
    return {
        "ok": report.ok,
        "files": report.files,
        "directories": report.directories,
        "streams": report.streams,
        "objects": report.objects,
        "bytes": report.bytes,
        "not_compared": report.unjudged,
        "problem_count": report.problem_count,
        "problems": [
            {
                "file": problem.file,
                "offset": problem.offset,
                "reason": problem.reason,
                "paths": paths.get(problem.region_offset, []),
            }
            for problem in report.problems
        ],
    }


def _print(output: Output, report: VerifyReport, paths: dict[int, list[str]]) -> None:
    for problem in report.problems:
        output.line(str(problem))
        affected = paths.get(problem.region_offset, [])
        for path in affected[:_SHOWN_PATHS]:
            output.line(f"    affects {path}")
        if len(affected) > _SHOWN_PATHS:
            output.line(f"    and {len(affected) - _SHOWN_PATHS} more")
    unlisted = report.problem_count - len(report.problems)
    if unlisted:
        output.line(f"and {counted(unlisted, 'more problem')}")
    output.line(
        f"files: {report.files}, directories: {report.directories}, alternate streams: {report.streams}, "
        f"objects: {report.objects} ({amount(report.bytes)})"
    )
    if report.unjudged:
        output.line(f"not compared (no content ID written by cimlayer): {report.unjudged}")
    output.line(counted(report.problem_count, "problem") if report.problem_count else "no problems")
