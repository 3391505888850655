"""Words for a shell, ssh's own failures, and options that make no sense."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.deploy import ssh as ssh_module
from edgekit.deploy.ssh import Done, Ssh, assignments, quote
from edgekit.deploy.ssh_errors import MEANINGS, explain
from edgekit.errors import DeployError, UsageError

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))

# As OpenSSH 9.2 says them.
CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
Offending ED25519 key in /home/me/.ssh/known_hosts:3
Host key verification failed.
"""


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=5), TEXTS)
def test_any_text_survives_the_shell(texts: list[str], value: str) -> None:
    show = 'sh -c \'printf "%s\\0" "$@" "$GIVEN"\' sh '
    command = assignments({"GIVEN": value}) + show + " ".join(map(quote, texts))
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=True, timeout=300)
    assert done.stdout.decode().split("\0")[:-1] == [*texts, value]


def test_a_zero_byte_is_no_word() -> None:
    with pytest.raises(UsageError, match="zero byte"):
        quote("a\0b")


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        (CHANGED, "its host key is not the one that this machine knows"),
        ("No ED25519 host key is known for nano and you have requested strict checking.\n"
         "Host key verification failed.", "its host key is not known to this machine"),
        ("me@nano: Permission denied (publickey,password).", "it accepts no key or password of yours"),
        ("Received disconnect from 10.0.0.7 port 22:2: Too many authentication failures", "too many keys were offered"),
        ("ssh: connect to host nano port 22: Connection refused", "nothing answers at that port"),
        ("ssh: connect to host 10.0.0.7 port 22: Connection timed out", "it does not answer in time"),
        ("Connection timed out during banner exchange", "it does not answer in time"),
        ("ssh: Could not resolve hostname nano: Name or service not known", "its name is not known"),
        ("ssh: connect to host 10.0.0.7 port 22: No route to host", "there is no way to it from this machine"),
        ("kex_exchange_identification: Connection closed by remote host", "closed it before a login"),
        ("client_loop: send disconnect: Broken pipe", "the connection broke"),
        ("Timeout, server 10.0.0.7 not responding.", "it does not answer in time"),
        ("command-line: line 0: Bad configuration option: foo", "ssh does not take its options"),
        ("something new", "cannot be reached"),
        ("", "ssh said: nothing"),
    ],
)  # fmt: skip
def test_what_ssh_says_is_explained_and_quoted(words: str, meaning: str) -> None:
    error = explain("me@nano", words)
    assert isinstance(error, DeployError) and error.exit_code == 13
    assert str(error).startswith("me@nano") and meaning in str(error)
    assert all(line in str(error) for line in words.strip().splitlines())


@given(TEXTS)
def test_nothing_that_ssh_says_is_lost(words: str) -> None:
    assert all(line.rstrip() in str(explain("b", words)) for line in words.splitlines() if line.strip())


def test_every_meaning_says_what_to_do() -> None:
    assert all(meaning and advice and not advice.endswith(".") for _, meaning, advice in MEANINGS)


@pytest.mark.parametrize(("host", "command"), [("", "ssh"), ("-oProxyCommand=x", "ssh"), ("a", ""), ("a", "ssh 'x")])
def test_options_that_make_no_sense(host: str, command: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        Ssh(host, command)


@pytest.mark.parametrize(
    "command",
    [
        "ssh -o ControlPath=none", "ssh -oControlMaster=auto", "ssh -o 'controlpersist yes'", "ssh -S /tmp/x",
        "ssh -S/tmp/x", "ssh -M", "sshpass -e ssh -o 'ControlPath none'",
    ],
)  # fmt: skip
def test_the_shared_connection_is_not_the_users(command: str) -> None:
    with pytest.raises(UsageError, match=r"leave .* out"):
        Ssh("a", command)


def test_other_options_are_the_users() -> None:
    Ssh("a", "sshpass -e ssh -m hmac-sha2-256 -s -p 22 -i 'Control' -o ConnectTimeout=60 -J me@jump")


def test_last_words_are_of_standard_error_first() -> None:
    lines = "".join(f"line {n}\n" for n in range(20))
    assert Done(1, b"{}\n" * 20, lines).words == "\n".join(f"line {n}" for n in range(5, 20))
    assert Done(1, lines.encode() + b"\xff", " \n").words.splitlines()[0] == "line 6"
    assert Done(1, b"", "").words == "nothing"


#: Takes the place of ssh: its last argument is run here; as the master it makes the socket and stays.
STAND_IN = """#!/bin/sh
for word; do case $word in ControlPath=*) socket=${word#ControlPath=};; -N) master=1;; esac; last=$word; done
[ -z "$master" ] || { >"$socket"; exec sleep 60; }
exec sh -c "$last"
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> str:
    path = tmp_path / "ssh"
    path.write_text(STAND_IN)
    path.chmod(0o755)
    return str(path)


def test_what_a_listener_raises_ends_the_command_and_is_raised(stand_in: str) -> None:
    def refuse(_: object) -> None:
        raise DeployError("refused")

    with Ssh("board", stand_in) as ssh:
        assert ssh.run("echo a; echo b >&2") == Done(0, b"a\n", "b\n")
        with pytest.raises(DeployError, match="refused"):
            ssh.run("echo a; exec sleep 60", on_output=refuse)
        with pytest.raises(DeployError, match="refused"):
            ssh.run("echo a >&2", on_error_line=refuse)


def test_what_a_login_prints_is_no_output_of_the_command(tmp_path: Path) -> None:
    path = tmp_path / "ssh"
    noisy = "printf 'Welcome\\n$ '; printf 'motd\\n% ' >&2\n"
    path.write_text(STAND_IN.replace("exec sh -c", noisy + "exec sh -c"))
    path.chmod(0o755)
    heard: list[str] = []
    with Ssh("board", str(path)) as ssh:
        assert ssh.run("printf a; echo b >&2", on_error_line=heard.append) == Done(0, b"a", "b\n")
        assert heard == ["b"]
        done = subprocess.run(ssh.words("echo '{}'"), capture_output=True, timeout=300, check=True)
        assert done.stdout.splitlines()[-1] == b"{}"


def test_a_login_that_runs_no_command_is_quoted(tmp_path: Path) -> None:
    path = tmp_path / "ssh"
    path.write_text(STAND_IN.replace("exec sh -c", "echo This account is not available.; exit 1 #"))
    path.chmod(0o755)
    with Ssh("board", str(path)) as ssh:
        done = ssh.run("true", on_output=lambda line: None)
        assert done.code == 1 and done.words == "This account is not available."


@pytest.mark.parametrize("name", ["n" * 90, "a b", "100%"])
def test_the_socket_has_a_short_and_plain_path(
    stand_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    with Ssh("board", stand_in) as ssh:
        (path,) = (word.partition("=")[2] for word in ssh.words("true") if word.startswith("ControlPath="))
        assert len(path) + len(".0123456789abcdef") < 104 and " " not in path and "%" not in path


def test_no_place_for_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DeployError, match="too long for ssh's socket"), Ssh("board"):
        pass


def test_the_wait_for_a_connection_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_module, "LOGIN_S", 0.2)
    path = tmp_path / "ssh"
    path.write_text("#!/bin/sh\necho hello >&2\nexec sleep 60\n")
    path.chmod(0o755)
    with Ssh("board", str(path)) as ssh, pytest.raises(DeployError, match=r"within 0\.2 s(.|\n)*hello"):
        ssh.run("true")
