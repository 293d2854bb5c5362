"""``cimlayer verify``."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click

from cimfs_ext.entries import ImageEntry
from cimfs_ext.reader import ImageReader
from cimfs_ext.reports import VerifyReport
from cimlayer.cli import failures
from cimlayer.cli.entries import size_options
from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.images import open_image
from cimlayer.cli.output import Output, amount, counted
from cimlayer.cli.progress import progress_of
from cimlayer.errors import CorruptImageError
from cimlayer.image.entrynames import shown

_SHOWN_PATHS = 10


@click.command("verify")
@click.argument("images", metavar="CIM...", nargs=-1, required=True, type=HOST_PATH)
@size_options(human=True)
@click.option("--jobs", metavar="N", type=click.IntRange(min=1), help="Number of threads (default: one per CPU).")
@click.option("as_json", "--json", is_flag=True, help="Print one JSON object per CIM, with all problems and paths.")
@click.pass_context
def command(ctx: click.Context, images: tuple[str, ...], human: bool, jobs: int | None, as_json: bool) -> None:
    """Verify the integrity of CIMs.

    Reads every table and object and compares content with its content ID. Objects written by Windows have IDs that
    only Windows can compute; they are counted as not compared. Problems are listed with the files that they affect,
    and the exit code is 1. Of several CIMs, all are verified, even if one of them cannot be read.
    """
    output = Output()
    failed = False
    for image in images:
        try:
            with open_image(image) as reader, progress_of("verifying", _stored(reader)) as progress:
                report = reader.verify(None if progress is None else progress.show, jobs=jobs)
                paths = _affected_paths(reader, report)
        except OSError as error:
            if len(images) == 1:
                raise
            failures.report(error, as_json=as_json)
            failed = True
            continue
        failed = failed or not report.ok
        if as_json:
            output.json({"image": image} | _facts(report, paths))
            continue
        if len(images) > 1:
            output.line((f"{image}:", "place"))
        _print(output, report, paths, human)
    if failed:
        ctx.exit(1)


def _stored(image: ImageReader) -> int:
    """Bytes in the region files, most of which are to be read."""
    names = (name for one in image.region_sets for name in one.file_names() if name.startswith("region_"))
    files = (os.path.join(image.directory, name) for name in names)  # noqa: PTH118  pathlib takes its time to load
    return sum(os.stat(file).st_size for file in files if os.path.exists(file))  # noqa: PTH110, PTH116


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


def _print(output: Output, report: VerifyReport, paths: dict[int, list[str]], human: bool) -> None:
    for problem in report.problems:
        output.line((str(problem), "error"))
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
        f"objects: {report.objects} ({amount(report.bytes) if human else counted(report.bytes, 'byte')})"
    )
    if report.unjudged:
        output.line(f"not compared (no content ID written by cimlayer): {report.unjudged}")
    output.line(counted(report.problem_count, "problem") if report.problem_count else "no problems")
