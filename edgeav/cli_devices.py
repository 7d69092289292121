"""The commands about devices: what there is, measure bundles there, what changed between two measurements."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeav import console, show
from edgeav.cli_options import Bundle, Json, Overrides
from edgeav.device import Device
from edgeav.errors import EdgeavError
from edgeav.progress import TerminalProgress

if TYPE_CHECKING:
    from edgeav.fleet import Fleet

Wait = Annotated[int, typer.Option(min=0, metavar="SECONDS", help="For a device that somebody else uses.")]


def devices(
    names: Annotated[list[str] | None, typer.Argument(metavar="[DEVICE]...", help="Default: all shipped.")] = None,
    reach: Annotated[bool, typer.Option(help="Also try to reach each of them.")] = True,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Example: edgeav devices raspberry-pi-5 --set connect=ssh:pi@192.168.1.20

    List the declared devices and which of them can be reached now, with what they say of themselves.
    """
    from edgeav.fleet import declared, survey

    chosen = declared(names, overrides or [])
    with TerminalProgress().busy("asking the devices"):
        rows = survey(chosen, reach)
    columns = ["device", "connect", "arch", "engines", "state"]
    console.print_json(rows) if as_json else console.print_table(rows, columns if reach else columns[:-1])


def profile(
    bundle: Bundle,
    device: Annotated[str, typer.Option(help="Shipped devices or YAML files, separated by commas.")] = "this-machine",
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Also write the profile(s) to this JSON file.")] = None,
    seconds: Annotated[float, typer.Option(min=0.2, help="Length of the utterance.")] = 4.0,
    single_stream: Annotated[bool, typer.Option(help="MLPerf-style: at least 1,024 queries and 60 s.")] = False,
    queries: Annotated[
        int | None, typer.Option(min=1, help="At least so many; default 50, single stream 1,024.")
    ] = None,
    at_least: Annotated[float | None, typer.Option(min=0, metavar="SECONDS", help="And for so long.")] = None,
    sustained: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Then work on without pause: 600.")] = 0.0,
    stream: Annotated[
        Path | None, typer.Option(metavar="CLIP", help="Play this file to the live captioner, and time each stage.")
    ] = None,
    measured: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What the app on a device with `connect: manual` measured.")
    ] = None,
    wait: Wait = 0,
    as_json: Json = False,
) -> None:
    """Example: edgeav profile runs/int8/bundles/onnxruntime-int8 --device this-machine --set threads=2

    Measure load, first inference, latency, real-time factor and memory; golden vectors are checked on the device first.
    Several devices (--device a,b,c) are measured in parallel and compared. --set changes the devices' settings.
    """
    chosen = [Device.load(name.strip(), overrides or []) for name in device.split(",")]
    if out:
        console.check_writable(out.parent, "--out")
    from edgeav.fleet import Load, profile_all

    if measured:
        found = _brought(measured, bundle, chosen)
    else:
        load = Load(seconds, single_stream, queries, at_least, sustained, stream)
        with TerminalProgress().busy(f"profiling {bundle} on {', '.join(one.name for one in chosen)}"):
            found = profile_all(bundle, chosen, load, wait)
    data = [row.model_dump(mode="json") for row in found.profiles]
    result = data[0] if len(chosen) == 1 and data else {"profiles": data, "errors": found.errors}
    if out and data:
        out.parent.mkdir(parents=True, exist_ok=True)
        console.write_json(out, result)
    _show(result, found.table(), as_json, alone=len(chosen) == 1)
    if found.errors:
        raise EdgeavError("\n".join(found.errors.values()))


def diff(
    first: Annotated[Path, typer.Argument(metavar="A.json", help="A profile or report.json.")],
    second: Annotated[Path, typer.Argument(metavar="B.json", help="Another one of the same kind.")],
    as_json: Json = False,
) -> None:
    """Example: edgeav diff monday.json tuesday.json

    Say what changed between two profiles or two reports: recipe, data, versions, device, and then the numbers.
    """
    from edgeav.difference import difference

    rows = difference(first, second)
    if as_json:
        console.print_json(rows)
    elif rows:
        console.print_table(rows, ["what", "field", "a", "b", "change"])
    else:
        print("nothing differs")


def _brought(measured: Path, bundle: Path, devices: list[Device]) -> Fleet:
    from edgeav.fleet import Fleet
    from edgeav.measured import read_measured

    if len(devices) != 1:
        raise EdgeavError("--measured is of one device: name it with --device")
    return Fleet([read_measured(measured, bundle, devices[0])], {})


def _show(result: dict, table: list[dict], as_json: bool, alone: bool) -> None:
    if as_json:
        console.print_json(result)
    elif alone and "profiles" not in result:
        show.profile(result)
    elif table:
        console.print_table(table, list(table[0]))
