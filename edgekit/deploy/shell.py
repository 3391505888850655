"""Commands for the shell of a board's user, whichever it is: sh, bash, csh, tcsh and fish take the same line alike."""

import re

#: What they all take as it is between single quotes; then the rest, byte by byte.
PARTS = re.compile(rb"[^'\\!\x00-\x1f\x7f-\xff]{1,200}|['\\!\x00-\x1f\x7f-\xff]{1,20}")
#: Bytes of a word: the old csh takes no more than 1024, and only so many words.
LONGEST = 900
#: A POSIX shell joins the words, with what stands for a byte as backslash, 0 and three octal digits, and runs that.
RUNS = """exec sh -c 'eval "$(printf %b "$@")"' sh"""


def for_any_shell(command: str) -> str:
    """One line that has a POSIX shell run `command`, whatever shell reads the line."""
    words = [""]
    for part in PARTS.findall(command.encode("utf-8", "surrogateescape")):
        text = f"'{part.decode()}'" if part[0] not in b"'\\!" and 0x20 <= part[0] < 0x7F else _octal(part)
        if len(words[-1]) + len(text) > LONGEST:
            words.append("")
        words[-1] += text
    return " ".join([RUNS, *words])


def _octal(part: bytes) -> str:
    # Outside quotes two backslashes are one, in all of these shells.
    return "".join(f"\\\\0{byte:03o}" for byte in part)
