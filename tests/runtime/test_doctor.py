"""The doctor on this machine, on bundles, and against servers: a real one, an older one, and some that are none."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgekit
from edgekit.bundle import Bundle
from edgekit.codecs.entropy import kernels
from edgekit.codecs.entropy.native import library
from edgekit.device_profiles.registry import profile, profiles
from edgekit.errors import BackendError, UnknownName, UsageError
from edgekit.line.frame import METHOD, Message, decode, encode
from edgekit.line.meter import Meter
from edgekit.runtime.doctor import examine, main
from edgekit.runtime.health import server as line
from edgekit.runtime.health import versions
from edgekit.runtime.health.coder import coder
from edgekit.runtime.health.finding import STATES, Finding, compared
from edgekit.runtime.transport import Loopback

CPU = profile("cpu").to_json()
NANO = profile("jetson-nano").to_json()
VERSIONS = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}", fullmatch=True)


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    assert len({finding.name for finding in findings}) == len(findings)
    for finding in findings:
        assert finding.state in STATES and finding.text
    return {finding.name: finding for finding in findings}


def test_this_machine_is_fit_for_its_cpu(small_bundle: Bundle) -> None:
    found = by_name(examine(small_bundle, CPU, None, "onnxruntime"))
    for name in ("python", "numpy", "grpc", "onnxruntime", "entropy coder", "bundle", "memory", "disk of the bundle"):
        assert found[name].state == "ok", found[name]
    assert not any(finding.state == "failed" for finding in found.values())
    assert found["bundle"].value == small_bundle.digest
    assert found["memory"].value["needed_bytes"] > 192 << 20


@pytest.mark.parametrize(
    ("choice", "state", "text"),
    [
        (kernels.Choice("native", "it loads", False), "ok", "compiled kernels: it loads"),
        (kernels.Choice("numpy", "asked for", True), "ok", "numpy: asked for"),
        (kernels.Choice("numpy", "no library", False), "warning", "numpy: no library"),
    ],
)
def test_which_kernels_code_entropy(
    choice: kernels.Choice, state: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "choice", lambda: choice)
    found = coder()
    assert (found.name, found.state, found.text, found.value) == ("entropy coder", state, text, choice.name)


def test_kernels_that_were_asked_for_and_do_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise BackendError("no library for this machine")

    monkeypatch.setattr(library, "load", load)
    monkeypatch.setattr(kernels, "choice", lambda: kernels.choose("native"))
    found = coder()
    assert (found.state, found.advice) == ("failed", "unset EDGEKIT_CODER")
    assert "EDGEKIT_CODER=native, but no library for this machine" in found.text


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="this machine has an NVIDIA GPU")
def test_this_machine_is_no_jetson() -> None:
    found = by_name(examine(None, NANO, None, "tensorrt"))
    assert found["driver"].state == "failed" and found["driver"].value is None and found["driver"].advice
    assert found["onnxruntime"].state == found["trtexec"].state == "ok"
    for name in ("L4T", "power mode", "board clocks", "energy"):
        assert found[name].state == "unknown" and found[name].value is None
    if found["tensorrt"].state != "ok":
        assert found["tensorrt"].state == "failed" and "python3-libnvinfer" in found["tensorrt"].advice


def test_a_python_that_is_too_old() -> None:
    found = by_name(examine(None, {"python": "3.99"}, None, "reference"))["python"]
    assert found.state == "failed" and "is older than expected: >= 3.99" in found.text and found.advice


def test_without_numpy_nothing_else_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a Jetson Nano, whose processor numpy 1.19.5 takes for another."""
    (tmp_path / "numpy.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    python, numpy, rest = examine(None, CPU, None, "onnxruntime")
    assert (python.state, numpy.state, rest.state) == ("ok", "failed", "unknown")
    assert "signal 4" in numpy.text and "OPENBLAS_CORETYPE" in numpy.advice
    code = "import sys; from edgekit.runtime.doctor import main; sys.exit(main(['nowhere']))"
    environment = dict(os.environ, PYTHONPATH=f"{tmp_path}{os.pathsep}{Path(edgekit.__file__).parent.parent}")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 8 and "FAILED  numpy" in done.stdout, done.stderr


@pytest.mark.parametrize("versions", [None, [], {"onnxruntime": 3}, {"onnxruntime": "new"}])
def test_a_manifest_may_hold_anything_for_a_profile(versions: Any) -> None:
    found = by_name(examine(None, {"name": "x", "python": 3, "versions": versions}, None, "onnxruntime"))
    assert found["onnxruntime"].state == ("unknown" if versions == {"onnxruntime": "new"} else "ok")


def test_an_unknown_backend_and_no_address() -> None:
    with pytest.raises(UnknownName, match="unknown backend 'tensorr': did you mean tensorrt"):
        examine(None, None, None, "tensorr")
    with pytest.raises(UsageError, match="HOST:PORT"):
        examine(None, None, "nowhere", "onnxruntime")


# Versions


@pytest.mark.parametrize(
    ("version", "wanted", "place"),
    [
        ("8.2.1", "8.2.1", 0), ("8.2.1.8", "8.2.1", 0), ("8.2.3", "8.2.1", 1), ("8.2", "8.2.1", -1),
        ("10.13.3.9", "10.13.x", 0), ("10.130", "10.13.x", 1), ("10.3.0", "10.13.x", -1),
        ("8.5.2-1+cuda11.4", "8.5.x", 0), ("7.0.RC1", "6.0.1 to 7.0", 0), ("7.0.1", "6.0.1 to 7.0", 0),
        ("7.1", "6.0.1 to 7.0", 1), ("6.0", "6.0.1 to 7.0", -1),
        ("1.10.0", ">= 1.10", 0), ("1.9.9", ">= 1.10", -1), ("2.0.0rc1", ">= 1.10", 0), ("10.2", "10.2", 0),
    ],
)  # fmt: skip
def test_versions_in_ranges(version: str, wanted: str, place: int) -> None:
    assert versions.compare(version, versions.parse(wanted)) == place


def test_ranges_of_every_profile_parse() -> None:
    words = {"soc_version", "raspberry_pi_os"}
    for board in map(profile, profiles()):
        for name, text in board.versions.items():
            if name not in words:
                versions.parse(text)


@given(st.text(max_size=30) | st.from_regex(r"(>= ?)?[0-9.x]{1,12}( to [0-9.x]{1,12})?", fullmatch=True))
def test_any_text_is_a_range_or_a_usage_error(text: str) -> None:
    try:
        low, high = versions.parse(text)
    except UsageError:
        return
    assert low and (high is None or low <= high or low[: len(high)] <= high)


@given(st.text(max_size=30), st.sampled_from(["8.2.1", "10.13.x", "6.0.1 to 7.0", ">= 1.10", "Ascend310", ""]))
def test_any_version_against_any_range_is_a_finding(version: str, wanted: str) -> None:
    found = compared("library", version, wanted, "failed", "install another")
    assert found.state in STATES and found.value == version
    assert (found.state == "ok") == (not found.advice)


@given(VERSIONS, VERSIONS)
def test_ends_of_a_range_are_in_it(one: str, other: str) -> None:
    low, high = sorted([one, other], key=lambda text: [int(part) for part in text.split(".")])
    between = versions.parse(f"{low} to {high}")
    assert versions.compare(low, between) == versions.compare(f"{high}.7", between) == 0
    assert versions.compare(low, versions.parse(low)) == versions.compare(low, versions.parse(f">= {low}")) == 0


# The line to a server


Answer = Callable[[Message], Iterator[Message]]


@pytest.fixture
def listening() -> Iterator[Callable[[Callable[[bytes], Iterator[bytes]]], str]]:
    """Starts gRPC servers that answer each frame by frames; a stream ends when there are none. Gives the address."""
    servers: list[Any] = []

    def start(answer: Callable[[bytes], Iterator[bytes]]) -> str:
        def stream(frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
            for frame in frames:
                replies = list(answer(frame))
                yield from replies
                if not replies:
                    return

        _, name, method = METHOD.split("/")
        handler = grpc.stream_stream_rpc_method_handler(stream)
        server = grpc.server(ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {method: handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(0).wait()


def pong(message: Message, ahead_s: float = 0.0, **header: Any) -> Message:
    told = {"time": time.time() + ahead_s, "bundle": "ab" * 32, "version": edgekit.__version__, "devices": 2, **header}
    return Message("pong", 0, message.step, told)


def test_a_real_server(small_bundle: Bundle) -> None:
    """It is asked, and then serves a device as if it had not been."""
    command = [sys.executable, "-m", "edgekit", "serve", small_bundle.path, "--listen", "127.0.0.1:0", "--devices", "1"]
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = f"127.0.0.1:{json.loads(process.stdout.readline())['port']}"
            found = by_name(line.server(address, small_bundle.digest))
            assert [each.state for each in found.values()] == ["ok", "ok", "ok"], found
            assert 0 < found["server"].value["round_trip_s"] < 5 and found["server"].value["devices"] == 0
            assert abs(found["clock"].value) <= found["server"].value["round_trip_s"]
            other = by_name(line.server(address, "0" * 64))["server's bundle"]
            assert other.state == "failed" and small_bundle.digest[:12] in other.text and "0" * 12 in other.text
            device = [sys.executable, "-m", "edgekit.runtime", small_bundle.path, "--server", address]
            subprocess.run([*device, "--limit", "64", "--epochs", "1"], check=True, capture_output=True, timeout=300)
            rest, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
            assert [json.loads(text)["event"] for text in rest.splitlines()] == ["joined", "tested", "left", "ended"]
        finally:
            process.kill()


@pytest.mark.parametrize(("ahead_s", "state"), [(0.4, "ok"), (-0.4, "ok"), (5.0, "warning"), (-3600.0, "warning")])
def test_clocks_that_differ(ahead_s: float, state: str) -> None:
    told = line.ping(Loopback(lambda message: pong(message, ahead_s), Meter()))
    assert told.skew_s == pytest.approx(ahead_s, abs=0.2)
    assert line._clock(told).state == state


def test_half_the_way_is_taken_off() -> None:
    def slow(message: Message) -> Message:
        time.sleep(0.05)
        answer = pong(message)
        time.sleep(0.05)
        return answer

    told = line.ping(Loopback(slow, Meter()))
    assert told.round_trip_s >= 0.1 and abs(told.skew_s) < 0.04


def test_an_older_server_is_reachable_but_too_old(listening: Callable[..., str]) -> None:
    def older(frame: bytes) -> Iterator[bytes]:
        yield encode(Message("error", 0, 0, {"code": 7, "message": "unknown message kind 11 (at byte 4)"}))

    (found,) = line.server(listening(older), None)
    assert found.state == "warning" and "reachable" in found.text and "unknown message kind 11" in found.text
    assert "update" in found.advice


def test_a_server_of_another_version(listening: Callable[..., str]) -> None:
    found = line.server(listening(lambda frame: iter([encode(pong(decode(frame), version="9.9"))])), None)[0]
    assert found.state == "warning" and f"it runs edgekit 9.9, this is {edgekit.__version__}" in found.text


@pytest.mark.parametrize("header", [{"time": "noon"}, {"time": None}, {"bundle": 3}, {"version": "\x1b[2J"}])
def test_a_pong_that_is_none(listening: Callable[..., str], header: dict[str, Any]) -> None:
    (found,) = line.server(listening(lambda frame: iter([encode(pong(decode(frame), **header))])), None)
    assert found.state == "failed" and "not as edgekit does" in found.text and "\x1b" not in found.text


def test_a_stream_that_ends(listening: Callable[..., str]) -> None:
    (found,) = line.server(listening(lambda frame: iter(())), None)
    assert found.state == "failed" and "ended the stream" in found.text and found.value is None


def test_nothing_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        found = examine(None, CPU, address, "onnxruntime")[-1]
    assert found.name == "server" and found.state == "failed" and found.advice
    assert f"no server answers at {address}: nothing listens at that port" in found.text


# The process


def test_json_has_the_documented_keys(small_bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([small_bundle.path, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["format"], told["version"]) == ("edgekit-doctor", 1)
    assert (told["device"], told["backend"], told["bundle"]) == ("cpu", "onnxruntime", small_bundle.digest)
    assert sum(told["summary"].values()) == len(told["findings"]) and set(told["summary"]) == set(STATES)
    assert all(set(each) == set(Finding._fields) for each in told["findings"])
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
    for key in [*told, *Finding._fields, *STATES]:
        assert f"`{key}`" in page, key
    for each in told["findings"]:
        assert f"`{each['name']}`" in page, each


def test_what_failed_is_named_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none"), "--backend", "reference"]) == 8
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].startswith("FAILED  bundle ") and "is no bundle" in said.out
    assert "1 failed" in lines[-1] and lines[-1].endswith("not fit to run reference")
    assert said.err == "error: bundle failed; what to do stands above\n"


def test_a_wrong_address_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--server", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("error: expected HOST:PORT")
