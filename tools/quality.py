#!/usr/bin/env python3
"""Measure how much each way to store weights loses, and draw it over their size.

    python3 tools/quality.py --program ./tensorpress MODEL.safetensors... \
        --page docs/choosing.md --picture docs/choosing.svg

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

SDNQ, COMFY = "sdnq", "comfy"

# name, layout, flags; those that stock ComfyUI loads have the comfy layout
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
    ]
)


def run(program: str, *args: str) -> dict:
    done = subprocess.run([program, *args], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(args)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def measure(program: str, model: str, layout: str, flags: list[str]) -> tuple[float, float]:
    """Returns the bits of a value, and the mean relative error of layers."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/out.safetensors"
        made = run(program, "quantize", model, out, "--layout", layout, *flags, "-q", "--json")
        layers = {l["name"]: l for l in made["layers"] if l["action"] == "quantize"}
        values = sum(math.prod(l["shape"]) for l in layers.values())
        bits = 8 * sum(l["bytes_out"] for l in layers.values()) / values
        found = run(program, "verify", out, "--source", model, "-q", "--json")["layers"]
        errors = [l["rel_mse"] for l in found if l["name"] in layers and l["rel_mse"] is not None]
        return bits, sum(errors) / len(errors)


def rows(program: str, models: list[str]):
    for name, layout, flags in WAYS:
        all_plain, all_searched, sizes = [], [], []
        for model in models:
            bits, plain = measure(program, model, layout, flags.split())
            _, searched = measure(program, model, layout, [*flags.split(), "--search"])
            sizes.append(bits)
            all_plain.append(plain)
            all_searched.append(searched)
        mean = lambda x: math.exp(sum(map(math.log, x)) / len(x))  # noqa: E731
        row = (name, layout, flags, mean(sizes), mean(all_plain), mean(all_searched))
        print(f"{name:34} {row[3]:6.3f} {row[4]:.3g} {row[5]:.3g}", flush=True)
        yield row


WIDTH, HEIGHT, LEFT, BELOW = 760, 460, 70, 50


def picture(table) -> str:
    """Draws errors over sizes: a line from the plain file to the searched one."""
    sizes = [r[3] for r in table]
    errors = [e for r in table for e in r[4:6]]
    low, high = math.floor(min(sizes)), math.ceil(max(sizes))
    least, most = math.floor(math.log10(min(errors))), math.ceil(math.log10(max(errors)))

    def x(bits: float) -> float:
        return LEFT + (bits - low) / (high - low) * (WIDTH - LEFT - 20)

    def y(error: float) -> float:
        return 20 + (most - math.log10(error)) / (most - least) * (HEIGHT - BELOW - 20)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle" fill="#333">bits a value, with scales</text>',
        f'<text x="14" y="{HEIGHT / 2}" transform="rotate(-90 14 {HEIGHT / 2})" text-anchor="middle" fill="#333">relative squared error</text>',
    ]
    for bits in range(low, high + 1):
        parts.append(f'<path d="M{x(bits):.1f} 20V{HEIGHT - BELOW}" stroke="#ddd"/>')
        parts.append(f'<text x="{x(bits):.1f}" y="{HEIGHT - BELOW + 16}" text-anchor="middle" fill="#555">{bits}</text>')
    for power in range(least, most + 1):
        at = y(10.0**power)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - 20}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end" fill="#555">1e{power}</text>')
    for name, layout, flags, bits, plain, searched in table:
        colour = "#c2410c" if layout == COMFY else "#1d4ed8"
        at = x(bits)
        parts.append(
            f'<g stroke="{colour}" fill="{colour}"><title>{name}: {bits:.2f} bits, {plain:.2g}, searched {searched:.2g}</title>'
            f'<path d="M{at:.1f} {y(plain):.1f}V{y(searched):.1f}"/><circle cx="{at:.1f}" cy="{y(plain):.1f}" r="3" fill="#fff"/>'
            f'<circle cx="{at:.1f}" cy="{y(searched):.1f}" r="3"/></g>'
        )
    for i, (colour, text) in enumerate((("#1d4ed8", "SDNQ's formats"), ("#c2410c", "ComfyUI's formats"))):
        parts.append(f'<circle cx="{WIDTH - 190}" cy="{36 + 18 * i}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - 180}" y="{40 + 18 * i}" fill="#333">{text}</text>')
    parts.append(f'<text x="{WIDTH - 194}" y="76" fill="#333">hollow: plain, full: --search</text></svg>')
    return "\n".join(parts) + "\n"


BEGIN, END = "<!-- table -->\n", "<!-- end -->\n"


def with_table(page: str, table) -> str:
    """Puts the table between the marks of a page."""
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    lines = ["| bits a value | way | flags | error | with `--search` |", "|---|---|---|---|---|"]
    for name, layout, flags, bits, plain, searched in table:
        found = f"{searched:.3g}" if searched < 0.999 * plain else "the same"
        lines.append(f"| {bits:.2f} | {name} | `--layout {layout} {flags}` | {plain:.3g} | {found} |")
    return before + BEGIN + "\n".join(lines) + "\n" + END + after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--program", default="tensorpress")
    parser.add_argument("--page", type=pathlib.Path, required=True, help="whose table is made anew")
    parser.add_argument("--picture", type=pathlib.Path, required=True)
    args = parser.parse_args()
    table = sorted(rows(args.program, args.models), key=lambda r: (round(r[3], 2), r[5]))
    args.page.write_text(with_table(args.page.read_text(), table))
    args.picture.write_text(picture(table))


if __name__ == "__main__":
    main()
