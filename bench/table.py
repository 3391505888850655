"""``python bench/table.py RECORD...``: the summaries of records as a Markdown table, for the README."""

import argparse
import json
import math
import sys


def row(path: str) -> str:
    """One line of the table, from the last line of a record."""
    with open(path, encoding="utf-8") as file:
        s = json.loads(file.readlines()[-1])
    config = " ".join(f"{key} {value}" for key, value in s["codec_config"].items())
    limit = "" if s["limit"] is None else f" ({s['limit']} images)"
    fp32 = 4 * math.prod(s["feature"])
    up, down = s["bytes_up_per_image"], s["bytes_down_per_image"]
    cells = [
        f"{s['model']}, {s['dataset']}{limit}, {s['epochs']} epochs",
        f"{s['codec']} {config}".strip(),
        f"{s['accuracy']:.2f} %",
        f"{up:.0f} ({fp32 / up:.1f}x)",
        f"{down:.0f} ({fp32 / down:.1f}x)",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", nargs="+", metavar="RECORD")
    records = parser.parse_args().records
    heads = ("run", "codec", "accuracy", "bytes up per image", "bytes down per image")
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *map(row, records)]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
