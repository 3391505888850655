"""One line for every login shell: what each that is here makes of it."""

import os
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.deploy.shell import LONGEST, for_any_shell
from edgekit.deploy.ssh import quote

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
SHELLS = [shell for shell in ("sh", "dash", "bash", "zsh", "bsd-csh", "tcsh", "fish") if shutil.which(shell)]
NASTY = "'a' \"b\" $HOME `x` $(x) \\n \\\\ !x !! ~ {a,b} *?[a] # ; & | < > ^ %d %% \ttab\r ä€\x01\x7f\nline\n"


def run(shell: str, command: str) -> "subprocess.CompletedProcess[bytes]":
    words = [shutil.which(shell) or shell, "-c", for_any_shell(command)]
    return subprocess.run(words, input=b"input", capture_output=True, timeout=300, check=False)


@pytest.mark.parametrize("shell", SHELLS)
def test_any_text_arrives(shell: str) -> None:
    texts = [NASTY, NASTY * 30, *map(chr, range(1, 256)), "\U0001f600"]
    done = run(shell, 'show() { printf "%s\\0" "$@"; }; show ' + " ".join(map(quote, texts)))
    assert done.stdout.decode().split("\0")[:-1] == texts and done.stderr == b""


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_any_text_arrives_at_sh(text: str) -> None:
    assert run("sh", f"printf %s {quote(text)}").stdout.decode() == text


@pytest.mark.parametrize("shell", SHELLS)
def test_input_and_exit_code_are_the_commands(shell: str) -> None:
    done = run(shell, "A=1 sh -c 'cat; echo $A'; exit 7")
    assert (done.returncode, done.stdout) == (7, b"input1\n")
    assert run(shell, "no-such-program").returncode == 127


def test_words_are_short_enough_for_the_old_csh() -> None:
    line = for_any_shell("x" * 50_000 + "'\n" * 3000)
    assert max(map(len, line.split(" "))) <= LONGEST and "\n" not in line and "!" not in line


def test_bytes_that_are_no_text_arrive() -> None:
    assert run("sh", f"printf %s {quote(os.fsdecode(bytes([0xFF])))}").stdout == b"\xff"
