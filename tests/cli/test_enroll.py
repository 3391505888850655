"""`edgekit enroll`: the five commands in a row, and what wrong input gives."""

import json
import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekit.cli.enroll import enroll
from edgekit.errors import EdgekitError, IdentityError, UsageError
from edgekit.runtime.identity.folder import open_identity


def run(*words: str) -> str:
    result = CliRunner().invoke(enroll, words)
    if isinstance(result.exception, EdgekitError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_five_commands(tmp_path: Path) -> None:
    ca, me, away = str(tmp_path / "ca"), str(tmp_path / "me"), str(tmp_path / "away")
    assert json.loads(run("init", ca, "--host", "10.0.0.2", "--json"))["hosts"][:1] == ["10.0.0.2"]
    assert json.loads(run("list", ca, "--json")) == {"devices": []}
    assert run("request", "--name", "nano", "-o", me) == f"{me}/device.csr\n"
    assert run("sign", ca, f"{me}/device.csr").startswith("nano: from 20")
    assert open_identity(me).name == "nano"
    signed = json.loads(run("sign", ca, f"{me}/device.csr", "-o", away, "--days", "3", "--json"))
    assert sorted(os.listdir(away)) == ["ca.pem", "device.pem"] and signed["out"] == away
    listed = json.loads(run("list", ca, "--json"))["devices"]
    assert [set(each) for each in listed] == [{"name", "serial", "from", "until", "revoked"}] * 2
    assert listed[1]["until"] - listed[1]["from"] == pytest.approx(
        4 * 86400
    )  # a day earlier, for clocks that are behind
    assert run("revoke", ca, "nano") == "2 certificates of nano revoked\n"
    lines = run("list", ca).splitlines()
    assert len(lines) == 2 and all(line.startswith("nano: from") and ", revoked 20" in line for line in lines)


def test_wrong_input(tmp_path: Path) -> None:
    ca = str(tmp_path / "ca")
    with pytest.raises(IdentityError, match="enroll init"):
        run("list", ca)
    run("init", ca)
    with pytest.raises(UsageError, match="no certificate of 'nobody' is left to revoke; enrolled: nobody"):
        run("revoke", ca, "nobody")
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        run("sign", ca, str(tmp_path / "none.csr"))
    with pytest.raises(IdentityError, match="is no certificate request"):
        run("sign", ca, sys.executable)
