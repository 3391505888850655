"""ATC: its command for each board, where it is found, its errors in plain words, progress, and the host's command."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgekit.codecs.registry import feature_codec
from edgekit.device_profiles.registry import profile
from edgekit.errors import BackendError
from edgekit.export.build import build_bundle
from edgekit.export.settings import BoardSettings, CalibrationImages, Coding, Network
from edgekit.runtime import cache
from edgekit.runtime.backends.ascend import atc, atc_codes, cann
from edgekit.tensors import TensorSpec
from tests.conftest import SmallNet
from tests.device.ascend.board import ROOT, environment, install_atc

IMAGE = TensorSpec("image", "float32", (32, 3, 32, 32))
BOOK = TensorSpec("codebook_weight", "float32", (128, 16, 1, 1))
CODES = TensorSpec("codes", "int32", (32, 8, 8, 8))
FEATURE = TensorSpec("feature", "float32", (32, 128, 8, 8))
GOLDEN = {
    ("atlas-200-dk", CODES): (
        "atc --mode=0 --model=front.onnx --output=front --framework=5 --soc_version=Ascend310 --input_format=NCHW "
        "--input_shape=image:32,3,32,32;codebook_weight:128,16,1,1 --precision_mode=force_fp16 --log=error"
    ),
    ("atlas-200-dk", FEATURE): (
        "atc --mode=0 --model=front.onnx --output=front --framework=5 --soc_version=Ascend310 --input_format=NCHW "
        "--input_shape=image:32,3,32,32;codebook_weight:128,16,1,1 --precision_mode=force_fp16 --output_type=FP32 "
        "--log=error"
    ),
    ("atlas-200i-dk-a2", CODES): (
        "atc --mode=0 --model=front.onnx --output=front --framework=5 --soc_version=Ascend310B4 --input_format=NCHW "
        "--input_shape=image:32,3,32,32;codebook_weight:128,16,1,1 --precision_mode=force_fp16 --log=error"
    ),
}


def negation() -> bytes:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])], "g",
        [value("x", TensorProto.FLOAT, [2, 3])], [value("y", TensorProto.FLOAT, [2, 3])],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)
    return bytes(made.SerializeToString())


NEGATION = negation()
JOB = atc.Job("Ascend310", "float16", (TensorSpec("x", "float32", (2, 3)),), (TensorSpec("y", "float32", (2, 3)),))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The emulated CANN; its folder."""
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def left_in(folder):
    return [name for name in os.listdir(folder) if name.startswith("edgekit-atc-")]


def compiled(job=JOB):
    said: list[str] = []
    return atc.compile_model(NEGATION, job, atc.log_of("x"), said.append), said


@pytest.mark.parametrize(("board", "output"), GOLDEN)
def test_the_command_of_each_board(board, output):
    job = atc.job(profile(board).to_json(), None, (IMAGE, BOOK), (output,))
    assert " ".join(atc.command("atc", "front.onnx", "front", job.options())) == GOLDEN[board, output]


def test_what_cannot_be_compiled_is_refused():
    device = profile("atlas-200-dk").to_json()
    with pytest.raises(BackendError, match=r"input 'image' of shape \[-1, 3, 32, 32\].*--static-batch"):
        atc.job(device, None, [IMAGE._replace(shape=(-1, 3, 32, 32))], [CODES]).options()
    with pytest.raises(BackendError, match=r"input 'a:b'"):
        atc.job(device, None, [IMAGE._replace(name="a:b")], [CODES]).options()
    with pytest.raises(BackendError, match="precision 'int8', expected one of"):
        JOB._replace(precision="int8").options()
    with pytest.raises(BackendError, match="nothing says which chip"):
        atc.job(profile("cpu").to_json(), None, [IMAGE], [CODES])
    assert atc.job({}, "Ascend310B1", [IMAGE], [CODES]).soc_version == "Ascend310B1"


def test_it_compiles_and_tidies_up(here):
    om, said = compiled()
    assert om.startswith(b"emulated om\n") and om.endswith(NEGATION)
    assert left_in(here) == [] and not (Path.cwd() / "kernel_meta").exists()
    assert said[0].startswith("compiling, which takes minutes: ") and re.match(r"atc took \d+ s; ", said[-1])
    assert "ATC run success" in (here / "cache" / "x.log").read_text()


def test_it_says_that_it_goes_on(here, monkeypatch):
    monkeypatch.setenv("EMULATED_ATC_SECONDS", "0.5")
    monkeypatch.setattr(atc, "PROGRESS_S", 0.1)
    _, said = compiled()
    assert [line for line in said if re.fullmatch(r"atc has been compiling for \d+ s", line)]


def test_it_is_found_where_cann_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("ASCEND_TOOLKIT_HOME", raising=False)
    monkeypatch.delenv("ASCEND_HOME_PATH", raising=False)
    monkeypatch.setattr(cann, "PLACES", (str(tmp_path / "nowhere"),))
    assert cann.find_atc() is None
    with pytest.raises(BackendError, match=r"atc is not here.*set_env.sh.*host with the same CANN"):
        compiled()
    with pytest.raises(BackendError, match=r"version of CANN is unknown.*nowhere.*install CANN"):
        cann.version()
    home = install_atc(tmp_path / "usual", "6.0.1")
    (home / "compiler").mkdir()
    shutil.move(str(home / "bin"), str(home / "compiler" / "bin"))
    monkeypatch.setattr(cann, "PLACES", (str(home),))
    assert (cann.find_atc(), cann.version()) == (str(home / "compiler" / "bin" / "atc"), "6.0.1")
    named = install_atc(tmp_path / "named", "7.0.0")
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(named))
    assert (cann.find_atc(), cann.version()) == (str(named / "bin" / "atc"), "7.0.0")
    on_path = install_atc(tmp_path / "path")
    monkeypatch.setenv("PATH", str(on_path / "bin"))
    assert cann.find_atc() == str(on_path / "bin" / "atc")
    monkeypatch.delenv("ASCEND_TOOLKIT_HOME")
    assert cann.version() == "7.0.RC1"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("EZ3003: No supported Ops kernel and engine are found for [Mod_3], optype [Mod].",
         "no kernel was .*Mod_3.*same CANN version.*replace it in the network"),
        ("E19010: No parser is registered for Op [Einsum_1, optype [Einsum]].", "no parser.*Einsum_1.*replace it"),
        ("EZ3002: Optype [Conv2D] of Ops kernel [AIcoreEngine] is unsupported. Reason: x.", "this form of an operator"),
        ("[ERROR] E40021: whatever this means", r"E40021: not in edgekit's table \[\[ERROR\] E40021: whatever"),
        ("atc: error while loading shared libraries: libge.so: cannot open", "does not find its libraries.*set_env.sh"),
        ("ModuleNotFoundError: No module named 'decorator'", "Python package.*pip install decorator"),
        ("Segmentation fault", r"it gave no code, and its last line is \[Segmentation fault\]"),
    ],
)  # fmt: skip
def test_its_errors_in_plain_words(line, words, here, monkeypatch):
    monkeypatch.setenv("EMULATED_ATC_FAIL", line)
    with pytest.raises(BackendError, match=r"(?s)atc ended with 255 and 0 .om: .*" + words) as caught:
        compiled()
    assert str(here / "cache" / "x.log") in str(caught.value)
    assert line in (here / "cache" / "x.log").read_text() and left_in(here) == []


@pytest.mark.parametrize(
    ("job", "code"),
    [
        (JOB._replace(soc_version="Ascend910"), "E10001"),
        (JOB._replace(inputs=(TensorSpec("z", "float32", (2, 3)),)), "E10016"),
    ],
)
def test_the_emulator_checks_the_command(job, code, here):
    with pytest.raises(BackendError, match=code):
        compiled(job)


def script(folder, text):
    """Makes the atc on PATH a shell script."""
    path = folder / "cann" / "bin" / "atc"
    path.write_text("#!/bin/sh\n" + text)


def test_killed_for_memory(here):
    script(here, "kill -9 $$\n")
    with pytest.raises(BackendError, match=r"atc ended with -9 .*memory runs out.*TE_PARALLEL_COMPILER=1"):
        compiled()


def test_success_without_a_file_is_a_failure(here):
    script(here, "echo ATC run success\n")
    with pytest.raises(BackendError, match=r"atc ended with 0 and 0 .om: .*\[ATC run success\]"):
        compiled()


def test_a_file_with_the_systems_name(here):
    script(here, 'for a in "$@"; do case $a in --output=*) echo om > "${a#--output=}_linux_aarch64.om";; esac; done\n')
    assert compiled()[0] == b"om\n"


def test_an_atc_for_another_processor(here):
    path = here / "cann" / "bin" / "atc"
    path.write_bytes(b"\x7fELF no program")
    with pytest.raises(BackendError, match=r"compiling by .*atc: "):
        compiled()
    assert left_in(here) == []


def test_interrupted_it_is_stopped_and_tidied(here):
    """Ctrl-C while ATC runs."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from edgekit.runtime.backends.ascend import atc\nfrom edgekit.tensors import TensorSpec\n"
        "job = atc.Job('Ascend310', 'float16', (TensorSpec('x', 'float32', (2, 3)),), ())\n"
        "atc.compile_model(b'', job, atc.log_of('x'), lambda line: print(line, flush=True))"
    )
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "EMULATED_ATC_SECONDS": "60"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert "KeyboardInterrupt" in err and left_in(here) == []


@given(st.text())
def test_any_output_gives_causes(text):
    for cause in atc_codes.causes(text + "\nE19010: x"):
        assert cause.meaning and cause.advice
    assert atc.reasons(text, 1)


@given(st.binary())
def test_any_version_file_is_read(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "install.info"
    path.write_bytes(content)
    assert cann._stated(str(path)) != ""
    path.write_bytes(content + b"\nversion = 8.0.0 \n")
    assert cann._stated(str(path))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, digits):
    board = profile("atlas-200-dk")
    torch.manual_seed(0)
    return build_bundle(
        str(tmp_path_factory.mktemp("atlas") / "bundle"),
        Network(SmallNet(), "small", "features"),
        CalibrationImages(digits.train_images[:64], digits.mean, digits.std, 10),
        Coding(feature_codec("sgq", {"groups": 4, "bits": 4})),
        BoardSettings(board, static_batch=16),
    )


def test_a_host_compiles_for_a_board(bundle, here, capsys):
    assert atc.main([bundle.path, "--dry-run"]) == 0
    line = shlex.split(capsys.readouterr().out.replace(";", "\\;"))
    assert line[0].endswith("atc") and "--soc_version=Ascend310" in line
    assert any(part.startswith("--input_shape=image:16,1,16,16;codebook_") for part in line)
    assert atc.main([bundle.path, "--log", "info"]) == 0
    path = capsys.readouterr().out.strip()
    assert path.startswith(str(here / "cache"))
    key, om = cache.unpack(Path(path).read_bytes())
    assert key["soc_version"] == "Ascend310" and key["cann"] == "7.0.RC1" and om.startswith(b"emulated om\n")
    assert atc.main([str(here)]) == 5
    assert "error: " in capsys.readouterr().err


def test_a_host_without_cann(bundle, here, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(cann, "PLACES", ())
    os.remove(here / "cann" / "bin" / "atc")
    assert atc.main([bundle.path]) == 8
    assert "atc is not here" in capsys.readouterr().err
    assert json.loads((Path(bundle.path) / "manifest.json").read_text())["device"]["name"] == "atlas-200-dk"
