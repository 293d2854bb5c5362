"""``cimlayer verify``."""

from __future__ import annotations

from collections.abc import Iterator

import click

from cimfs_ext.entries import ImageEntry, VerifyReport
from cimfs_ext.reader import ImageReader
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image
from cimlayer.cli.output import Output, amount
from cimlayer.errors import CorruptImageError
from cimlayer.image.entrynames import shown

_SHOWN_PATHS = 10


@click.command("verify")
@click.argument("image", metavar="IMAGE", type=HOST_PATH)
@click.option("as_json", "--json", is_flag=True, help="One JSON object with all problems and all paths.")
@click.pass_context
def command(ctx: click.Context, image: str, as_json: bool) -> None:
    """Check everything an image holds.

    Every table and every object is read, and content is compared with its content ID. Objects that Windows
    stored have IDs that only Windows can compute: they are counted as not compared. Each problem is shown
    with the files that it affects; the exit code is 1 then.
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
    """For each region offset at fault the paths that refer to it; an undamaged image is not walked."""
    offsets_at_fault = {problem.region_offset for problem in report.problems} - {0}
    paths: dict[int, list[str]] = {offset: [] for offset in offsets_at_fault}
    if paths:
        for path, offsets in _references(reader):
            for offset in offsets & paths.keys():
                paths[offset].append(shown(path))
    return paths


def _references(reader: ImageReader) -> Iterator[tuple[str, set[int]]]:
    """The region offsets that each path refers to, as far as a damaged image can be read."""
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
    untold = report.problem_count - len(report.problems)
    if untold:
        output.line(f"and {untold} more problems")
    output.line(
        f"files: {report.files}, directories: {report.directories}, alternate streams: {report.streams}, "
        f"objects: {report.objects} ({amount(report.bytes)})"
    )
    if report.unjudged:
        output.line(f"not compared, for they have no content ID of ours: {report.unjudged}")
    count = report.problem_count
    output.line({0: "no problems", 1: "1 problem"}.get(count, f"{count} problems"))
