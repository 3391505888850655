"""An emulator of the ATC command for tests: checks its arguments and writes what `emulator` loads; NOT Huawei's.

The .om is the ONNX file behind a line of JSON. EMULATED_ATC_FAIL is a line that it fails with, EMULATED_ATC_TYPES
the types that outputs get ("int32=int64,float32=float16"), EMULATED_ATC_SECONDS how long it takes, and to the file
EMULATED_ATC_RECORD it adds a line with its arguments.
"""

import json
import os
import sys
import time

from edgekit.errors import PayloadError
from edgekit.runtime import onnxfile

CHIPS = ("Ascend310", "Ascend310B1", "Ascend310B4")
OPTIONS = {
    "--mode": ("0",), "--framework": ("5",), "--model": None, "--output": None, "--soc_version": CHIPS,
    "--input_format": ("NCHW", "ND"), "--input_shape": None, "--output_type": ("FP32", "FP16", "UINT8", "INT8"),
    "--precision_mode": ("force_fp16", "allow_fp32_to_fp16", "must_keep_origin_dtype", "allow_mix_precision"),
    "--log": ("debug", "info", "warning", "error", "null"),
}  # fmt: skip
NEEDED = ("--framework", "--model", "--output", "--soc_version", "--input_shape")


class Failure(Exception):
    pass


def parse(arguments: list[str]) -> dict[str, str]:
    options = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name not in OPTIONS or not equals:
            raise Failure(f"E10014: Value {argument} for parameter --{name} is invalid.")
        allowed = OPTIONS[name]
        if allowed and value not in allowed:
            raise Failure(f"E10001: Value {value} for parameter {name} is invalid. Reason: expected {allowed}")
        options[name] = value
    for name in NEEDED:
        if not options.get(name):
            raise Failure(f"E10007: {name} is required. The value must be set.")
    return options


def compile_om(options: dict[str, str]) -> bytes:
    if not os.path.isfile(options["--model"]):
        raise Failure(f"E10410: File {options['--model']} does not exist.")
    with open(options["--model"], "rb") as file:
        onnx = file.read()
    try:
        model = onnxfile.load(onnx)
    except PayloadError as error:
        raise Failure(f"E13005: Failed to parse file {options['--model']}: {error}") from None
    shapes = {}
    for entry in options["--input_shape"].split(";"):
        name, _, lengths = entry.rpartition(":")
        if name not in model.inputs:
            raise Failure(f"E10016: Opname {name} specified in --input_shape is not found in the model.")
        shapes[name] = [int(length) for length in lengths.split(",")]
        if min(shapes[name]) < 1:
            raise Failure(f"E10011: Value {entry} for parameter --input_shape is invalid.")
    if set(shapes) != set(model.inputs):
        raise Failure(f"E11005: The shape is not defined by using --input_shape for input {set(model.inputs)}.")
    types = dict(pair.split("=") for pair in os.environ.get("EMULATED_ATC_TYPES", "").split(",") if pair)
    ordered = {name: shapes[name] for name in model.inputs}
    head = {"soc_version": options["--soc_version"], "inputs": ordered, "types": types}
    return b"emulated om\n" + json.dumps(head).encode() + b"\n" + onnx


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    if "EMULATED_ATC_RECORD" in os.environ:
        with open(os.environ["EMULATED_ATC_RECORD"], "a", encoding="utf-8") as record:
            record.write(json.dumps(arguments) + "\n")
    say("ATC start working now, please wait for a moment.")
    try:
        if "EMULATED_ATC_FAIL" in os.environ:
            raise Failure(os.environ["EMULATED_ATC_FAIL"])
        time.sleep(float(os.environ.get("EMULATED_ATC_SECONDS", "0")))
        options = parse(arguments)
        om = compile_om(options)
        with open(options["--output"] + ".om", "wb") as file:
            file.write(om)
    except Failure as failure:
        say("ATC run failed, Please check the detail log, Try 'atc --help' for more information")
        say(str(failure))
        return 255
    # As atc does, where it runs.
    os.makedirs("kernel_meta", exist_ok=True)
    say("ATC run success, welcome to the next use.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
