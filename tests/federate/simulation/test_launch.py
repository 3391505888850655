"""What `edgekit federate` refuses before it writes anything, and what its rounds come to."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekit.cli import group
from edgekit.errors import EdgekitError, UnknownName, UsageError
from edgekit.federate import apart
from edgekit.federate.run import Plan
from edgekit.federate.settings import Local
from edgekit.federate.simulation.launch import summary
from edgekit.federate.simulation.settings import Told


@pytest.fixture
def flower(tmp_path: Path) -> str:
    """An environment with programs that must never be called."""
    for name in ("flwr", "flower-superlink"):
        path = tmp_path / "flower/bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\nexit 99\n", encoding="utf-8")
        path.chmod(0o755)
    return str(tmp_path / "flower")


@pytest.mark.parametrize(
    ("words", "error", "told"),
    [
        (["vgg11thin"], UnknownName, "did you mean vgg11_thin"),
        (["vgg11_thin", "--update-codec", "quantized"], UnknownName, "did you mean quantised"),
        (["vgg11_thin", "--down-codec", "quantised:stp=1"], UnknownName, "did you mean step"),
        (["vgg11_thin", "--strategy", "fedadm"], UnknownName, "did you mean fedadam"),
        (["vgg11_thin", "--dataset", "digit"], UnknownName, "did you mean digits"),
        (["vgg11_thin", "--clients", "0"], UsageError, "clients: 0"),
        (["vgg11_thin", "--rounds", "0"], UsageError, "rounds: 0"),
        (["vgg11_thin", "--sampling", "some"], UsageError, "--sampling some"),
        (["vgg11_thin", "--scaling", "on", "--validation", "0"], UsageError, "validation of 0"),
        (["vgg11_thin", "--clients", "9", "--limit", "10"], UsageError, "expected at least 2"),
        (["vgg11_thin", "--mean", "0.1,0.2"], UsageError, "--mean of 2 numbers"),
        (["vgg11_thin", "--weights", "none.safetensors"], UsageError, "none.safetensors"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    words: list[str], error: type[EdgekitError], told: str, flower: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(group, ["federate", *words, "--flower", flower, "--out", str(out)])
    assert isinstance(done.exception, error) and told in str(done.exception), done.exception
    assert not out.exists()


def test_without_flower_it_says_what_makes_it(tmp_path: Path) -> None:
    done = CliRunner().invoke(group, ["federate", "vgg11_thin", "--flower", str(tmp_path), "--out", f"{tmp_path}/o"])
    assert isinstance(done.exception, UsageError) and "`make flower`" in str(done.exception)
    assert done.exception.exit_code == 2 and not (tmp_path / "o").exists()


def test_an_earlier_run_is_not_lost(flower: str, tmp_path: Path) -> None:
    (tmp_path / "record.jsonl").write_text("{}", encoding="utf-8")
    done = CliRunner().invoke(group, ["federate", "vgg11_thin", "--flower", flower, "--out", str(tmp_path)])
    assert isinstance(done.exception, UsageError) and "it holds an earlier run (record.jsonl)" in str(done.exception)


def row(number: int, **more: float) -> dict[str, object]:
    sizes = {"bytes_up": 10, "bytes_down": 100, "bytes_up_of_clients": 10, "bytes_down_of_clients": 100}
    return {"event": "round", "round": number, "clients": 2, "loss": 1.0, "formula_bytes_up": 8.0, "bytes_whole": 100,
            "seconds": 3.0 * number, **sizes, **more}  # fmt: skip


def test_a_summary_adds_the_rounds_up() -> None:
    tested = {"test_loss": 1.0, "images_tested": 5}
    rounds = [row(1, accuracy=80.0, **tested), row(2), row(3, accuracy=70.0, **tested)]
    found = summary({"model": "m"}, rounds)
    assert found["bytes_up"] == 30 and found["bytes_whole"] == 600
    assert found["times_fewer_up"] == 20 and found["times_fewer_down"] == 2
    assert (found["accuracy"], found["best_accuracy"], found["best_round"]) == (70.0, 80.0, 1)
    assert found["seconds"] == 9 and json.dumps(found)


def test_the_page_on_records_names_every_field() -> None:
    page = (Path(__file__).parents[3] / "docs/record.md").read_text(encoding="utf-8")
    _, _, mine = page.partition("## Federated learning over Flower")
    rounds = [row(1, accuracy=80.0, test_loss=1.0, images_tested=5)]
    fields = {*rounds[0], *summary({}, rounds), *Told._fields} - {"event", "plan", "mean", "std", "images", "network"}
    assert not {name for name in fields if f"`{name}`" not in mine} - {"classes"}


def test_options_have_the_defaults_of_a_plan() -> None:
    from edgekit.cli.federate import SCALES_CODEC, STATISTICS_CODEC, federate

    assert (STATISTICS_CODEC, SCALES_CODEC) == (apart.STATISTICS_CODEC, apart.SCALES_CODEC)
    with federate.make_context("federate", ["vgg11_thin"]) as context:
        given = context.params
    plan, local = Plan()._asdict(), Local()._asdict()
    assert {name: given[name] for name in plan if name in given} == {name: plan[name] for name in plan if name in given}
    same = set(local) & set(given) - {"validation"}
    assert {name: given[name] for name in same} == {name: local[name] for name in same}
    assert given["local_epochs"] == local["epochs"] and set(plan) - set(given) == {"policy", "local"}
