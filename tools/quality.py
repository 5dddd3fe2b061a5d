#!/usr/bin/env python3
"""Measure how much each way to store weights loses, and draw it over their size.

    python3 tools/quality.py --program ./tensorpress MODEL.safetensors... \
        --page docs/choosing.md --picture docs/choosing.svg

Without models nothing is measured: the picture is drawn again from the page's table.
Every model is quantized in every way of WAYS, plainly and with --search, and compared
with its source by `tensorpress verify --source`. The error of a way is the mean over
layers of the sum of squared errors over that of squared weights, its size the bits that
a value takes with all that is stored beside the codes. Standard library alone.
"""

import argparse
import json
import math
import pathlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

SDNQ, COMFY = "sdnq", "comfy"

# name, layout, flags, bits a value, error, error with --search
Row = tuple[str, str, str, float, float, float]
Table = list[Row]
Box = tuple[float, float, float, float]  # left, top, right, bottom
Scale = Callable[[float], float]

# name, layout, flags; those that stock ComfyUI loads have the comfy layout, and one that
# it does not load, which is not drawn
NOT_DRAWN = "svdquant_w4a4"
WAYS = (
    [(f"uint{b} g{g}", SDNQ, f"--dtype uint{b} --group-size {g}") for b in (2, 3, 4, 5, 6, 8) for g in (32, 64, 128)]
    + [
        (f"uint{b} g{g}, 8-bit scales", SDNQ, f"--dtype uint{b} --group-size {g} --scale-dtype uint8")
        for b in (2, 3, 4, 5, 6, 8)
        for g in (16, 32, 64)
    ]
    + [
        (f"uint{b} g32, 8-bit scales, rotated", SDNQ, f"--dtype uint{b} --group-size 32 --scale-dtype uint8 --hadamard")
        for b in (2, 3, 4)
    ]
    + [(f"int{b} g{g}", SDNQ, f"--dtype int{b} --group-size {g}") for b in (3, 4) for g in (32, 64)]
    + [
        ("int8 rows", SDNQ, "--dtype int8 --group-size -1"),
        ("float8_e4m3fn rows", SDNQ, "--dtype float8_e4m3fn --group-size -1"),
        ("uint4 g64, rank 32", SDNQ, "--dtype uint4 --group-size 64 --svd-rank 32"),
        ("uint4 g64, rank 32 refitted", SDNQ, "--dtype uint4 --group-size 64 --svd-rank 32 --svd-refit 3"),
        ("nvfp4", COMFY, "--dtype nvfp4"),
        ("mxfp8", COMFY, "--dtype mxfp8"),
        ("float8_e4m3fn", COMFY, "--dtype float8_e4m3fn"),
        ("int8_tensorwise", COMFY, "--dtype int8_tensorwise"),
        ("int8_tensorwise, rotated", COMFY, "--dtype int8_tensorwise --convrot"),
        ("convrot_w4a4", COMFY, "--dtype convrot_w4a4"),
        ("asym_w4a8_int8", COMFY, "--dtype asym_w4a8_int8"),
        ("asym_w4a8_int8, 6 bits", COMFY, "--dtype asym_w4a8_int8 --bits 6"),
        ("awq_w4a16 g64", COMFY, "--dtype awq_w4a16"),
        ("awq_w4a16 g32", COMFY, "--dtype awq_w4a16 --group-size 32"),
        ("svdquant_w4a4", COMFY, "--dtype svdquant_w4a4"),
        ("svdquant_w4a4 refitted", COMFY, "--dtype svdquant_w4a4 --svd-refit 3"),
    ]
)


def run(program: str, *args: str) -> dict[str, Any]:
    done = subprocess.run([program, *args], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(args)}: {done.stderr.strip()}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(program: str, model: str, layout: str, flags: list[str]) -> tuple[float, float]:
    """Returns the bits of a value, and the mean relative error of layers."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/out.safetensors"
        made = run(program, "quantize", model, out, "--layout", layout, *flags, "-q", "--json")
        layers = {layer["name"]: layer for layer in made["layers"] if layer["action"] == "quantize"}
        values = sum(math.prod(layer["shape"]) for layer in layers.values())
        bits = 8 * sum(layer["bytes_out"] for layer in layers.values()) / values
        found = run(program, "verify", out, "--source", model, "-q", "--json")["layers"]
        errors = [one["rel_mse"] for one in found if one["name"] in layers and one["rel_mse"] is not None]
        return bits, sum(errors) / len(errors)


def mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def rows(program: str, models: list[str]) -> Iterator[Row]:
    for name, layout, flags in WAYS:
        all_plain, all_searched, sizes = [], [], []
        for model in models:
            bits, plain = measure(program, model, layout, flags.split())
            _, searched = measure(program, model, layout, [*flags.split(), "--search"])
            sizes.append(bits)
            all_plain.append(plain)
            all_searched.append(searched)
        row = (name, layout, flags, mean(sizes), mean(all_plain), mean(all_searched))
        print(f"{name:34} {row[3]:6.3f} {row[4]:.3g} {row[5]:.3g}", flush=True)
        yield row


WIDTH, HEIGHT = 840, 450
LEFT, RIGHT, ABOVE, BELOW = 80, 24, 62, 50

# The picture has a ground of its own, light or dark as the reader's system is, so that it
# is legible on any page; --ground and the like are what differs.
LEGEND = (
    (COMFY, "ComfyUI's formats"),
    (SDNQ, "SDNQ's: SD.Next, diffusers, transformers"),
    (f"plain {SDNQ}", "without --search"),
)
STYLE = """\
svg{--ground:#fff;--ink:#1f2328;--faint:#59636e;--grid:#e6e9ed;--sdnq:#1f5fd0;--comfy:#b3470d}
@media(prefers-color-scheme:dark){svg{--ground:#0d1117;--ink:#e6edf3;--faint:#9198a1;--grid:#262c36;--sdnq:#6cabff;--comfy:#f6913f}}
text{fill:var(--ink)}.tick{fill:var(--faint);font-size:13px}.grid{stroke:var(--grid)}
.sdnq{stroke:var(--sdnq);fill:var(--sdnq)}.comfy{stroke:var(--comfy);fill:var(--comfy)}
.line{fill:none;stroke-width:2;stroke-opacity:.55}.drop{stroke-opacity:.4}.plain{fill:var(--ground);stroke-width:1.2}
.name{stroke:none;font-size:13px}.halo{stroke:var(--ground);fill:var(--ground);stroke-width:4;stroke-linejoin:round;font-size:13px}"""


def axes(table: Table) -> tuple[Scale, Scale, range, range]:
    """Returns where sizes and errors are drawn, and the ticks of both."""
    sizes, errors = [r[3] for r in table], [e for r in table for e in r[4:6]]
    low, high = math.floor(min(sizes)), math.ceil(max(sizes))
    least, most = math.floor(math.log10(min(errors))), math.ceil(math.log10(max(errors)))

    def x(bits: float) -> float:
        return LEFT + (bits - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(error: float) -> float:
        return ABOVE + (most - math.log10(error)) / (most - least) * (HEIGHT - BELOW - ABOVE)

    return x, y, range(low, high + 1), range(least, most + 1)


def words(x: float, y: float, text: str, kind: str = "", anchor: str = "start", more: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{text}</text>'


def dot(x: float, y: float, kind: str = "", r: float = 3.5) -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<circle{kind} cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>'


def frame(x: Scale, y: Scale, bits: range, powers: range) -> list[str]:
    """The ground, the grid, the words along the axes and the legend."""
    middle = HEIGHT / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"',
        ' font-family="system-ui,sans-serif" font-size="14">',
        "<title>Error of quantized weights over the bits that a value takes</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="var(--ground)"/>',
        words(LEFT, 26, "What a format takes and what it loses", more=' font-weight="600"'),
        words((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "bits a value, scales included", anchor="middle"),
        words(18, middle, "relative squared error", anchor="middle", more=f' transform="rotate(-90 18 {middle})"'),
    ]
    for n in bits:
        parts.append(f'<path class="grid" d="M{x(n):.1f} {ABOVE}V{HEIGHT - BELOW}"/>')
        parts.append(words(x(n), HEIGHT - BELOW + 18, str(n), "tick", "middle"))
    for power in powers:
        at = y(10.0**power)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(words(LEFT - 7, at + 4, f"{10.0**power:.{max(0, -power)}f}", "tick", "end"))
    at = LEFT + 6.0
    for kind, text in LEGEND:
        parts += [dot(at, 43, kind), words(at + 10, 47, text, "tick")]
        at += 34 + 6.6 * len(text)
    return parts


def best(table: Table, layout: str) -> Table:
    """Those of a layout that no smaller one is as good as, from small to large."""
    found: Table = []
    for r in sorted((r for r in table if r[1] == layout), key=lambda r: (r[3], r[5])):
        if not found or r[5] < found[-1][5]:
            found.append(r)
    return found


def label(row: Row) -> str:
    """What a row is called in the picture: ComfyUI's formats, and what --bits chooses of
    SDNQ's. "" for the others."""
    name, layout = row[:2]
    if layout == COMFY:
        return "" if name.startswith("awq") else name
    return name.split()[0] if name.endswith("g32, 8-bit scales") else ""


def overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def place(at: float, up: float, wide: float, taken: list[Box]) -> Box:
    """Finds the place of a name beside its point that hides least of what is there."""
    boxes = []
    for dy in (0, 10, -10, 20, -20, 30, -30, 40):
        top, end = up + dy - 7, up + dy + 7
        boxes += [(at + 8, top, at + 8 + wide, end), (at - 8 - wide, top, at - 8, end)]
    boxes = [b for b in boxes if b[0] > LEFT and b[2] < WIDTH - 4 and b[3] < HEIGHT - BELOW]
    return min(boxes, key=lambda b: sum(overlap(b, t) for t in taken))


def labels(named: Table, x: Scale, y: Scale, taken: list[Box]) -> list[str]:
    """Writes names beside their points, where neither points nor other names are."""
    parts = []
    for name, layout, _, bits, _, error in named:
        box = place(x(bits), y(error), 7.5 * len(name), taken)
        taken.append(box)
        anchor, where = ("start", box[0]) if box[0] > x(bits) else ("end", box[2])
        parts += [words(where, box[1] + 11, name, kind, anchor) for kind in ("halo", f"name {layout}")]
    return parts


def picture(table: Table) -> str:
    """Draws errors over sizes: a drop from the plain file to the searched one, a line
    through the best of each layout, and names."""
    table = [row for row in table if not row[0].startswith(NOT_DRAWN)]
    x, y, bits, powers = axes(table)
    parts = frame(x, y, bits, powers)
    taken: list[Box] = []
    for layout in (SDNQ, COMFY):
        points = " L".join(f"{x(r[3]):.1f} {y(r[5]):.1f}" for r in best(table, layout))
        parts.append(f'<path class="line {layout}" d="M{points}"/>')
    for name, layout, _, size, plain, searched in table:
        at, top, end = x(size), y(plain), y(searched)
        parts += [
            f'<g class="{layout}"><title>{name}: {size:.2f} bits, {plain:.2g}, searched {searched:.2g}</title>',
            f'<path class="drop" d="M{at:.1f} {top:.1f}V{end:.1f}"/>{dot(at, top, "plain", 2.5)}{dot(at, end)}</g>',
        ]
        taken += [(at - 4, end - 4, at + 4, end + 4), (at - 3, top - 3, at + 3, top + 3)]
    named = [(text, *r[1:]) for r in table if (text := label(r))]
    return "\n".join([*parts, *labels(named, x, y, taken), "</svg>"]) + "\n"


BEGIN, END = "<!-- table -->\n", "<!-- end -->\n"


def with_table(page: str, table: Table) -> str:
    """Puts the table between the marks of a page."""
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    lines = ["| bits a value | way | flags | error | with `--search` |", "|---|---|---|---|---|"]
    for name, layout, flags, bits, plain, searched in table:
        found = f"{searched:.3g}" if searched < 0.999 * plain else "the same"
        lines.append(f"| {bits:.2f} | {name} | `--layout {layout} {flags}` | {plain:.3g} | {found} |")
    return before + BEGIN + "\n".join(lines) + "\n" + END + after


def read_table(page: str) -> Iterator[Row]:
    """Returns the rows of a page's table, which has figures as they are printed."""
    for line in page.split(BEGIN)[1].split(END)[0].splitlines()[2:]:
        bits, name, flags, plain, searched = (cell.strip() for cell in line.strip("|").split("|"))
        layout, flags = flags.strip("`").removeprefix("--layout ").split(" ", 1)
        yield name, layout, flags, float(bits), float(plain), float(plain if searched == "the same" else searched)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="without any, the picture is drawn from the page's table")
    parser.add_argument("--program", default="tensorpress")
    parser.add_argument("--page", type=pathlib.Path, required=True, help="whose table is made anew")
    parser.add_argument("--picture", type=pathlib.Path, required=True)
    args = parser.parse_args()
    if args.models:
        table = sorted(rows(args.program, args.models), key=lambda r: (round(r[3], 2), r[5]))
        args.page.write_text(with_table(args.page.read_text(), table))
    args.picture.write_text(picture(list(read_table(args.page.read_text()))))


if __name__ == "__main__":
    main()
