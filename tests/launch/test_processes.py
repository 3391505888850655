"""Children: events as they come, a failure with its last words, and nothing left running."""

import os
import signal
import subprocess
import sys
import time

import pytest

from edgekit.errors import BundleError, ChildFailed
from edgekit.launch import processes
from edgekit.launch.processes import Children

#: Imports next to nothing, so that a child starts in no time.
PYTHON = (sys.executable, "-S", "-c")
FOREVER = 'import time\nprint(\'{"event": "ready"}\', flush=True)\nwhile True: time.sleep(60)'
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FOREVER


def pids(children):
    return [process.pid for process in children._processes.values()]


def runs(pid):
    """Whether the process is there: one that ended and was waited for is not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until_ready(children, n=1):
    for _ in range(n):
        assert next(children.events())[1] == {"event": "ready"}


def test_events_arrive_in_order_until_all_children_have_ended():
    with Children(PYTHON) as children:
        for name in ("a", "b"):
            children.start(
                name, ["import sys\nfor i in range(50): print('{\"event\": %d}' % i)\nsys.stderr.write('noise')"]
            )
        events = list(children.events())
        assert [event["event"] for name, event in events if name == "a"] == list(range(50))
        assert [event["event"] for name, event in events if name == "b"] == list(range(50))


def test_an_event_arrives_while_its_child_still_runs_and_more_can_be_started_then():
    with Children(PYTHON) as children:
        children.start("server", ["print('{\"port\": 1}')\nimport time\ntime.sleep(60)"])
        events = children.events()
        assert next(events) == ("server", {"port": 1})
        children.start("device", ["print('{\"done\": true}')"])
        assert next(events) == ("device", {"done": True})
        assert runs(pids(children)[0])


def test_arguments_follow_the_command():
    with Children((*PYTHON, "import json, sys\nprint(json.dumps({'got': sys.argv[1:]}))")) as children:
        children.start("a", ["--seed", "3"])
        assert list(children.events()) == [("a", {"got": ["--seed", "3"]})]


def test_without_a_command_children_are_edgekit():
    with Children() as children:
        children.start("server", ["serfe"])
        with pytest.raises(ChildFailed, match=r"server ended with exit code 2: [\s\S]*did you mean serve") as caught:
            list(children.events())
        assert caught.value.exit_code == 2


def test_a_child_finds_no_terminal_one_thread_and_no_buffer():
    code = "import json, os, sys\nprint(json.dumps({'x': [os.environ['OMP_NUM_THREADS'], sys.stdin.read()]}))"
    with Children(PYTHON) as children:
        children.start("a", [code])
        assert list(children.events()) == [("a", {"x": ["1", ""]})]


@pytest.mark.parametrize(
    ("code", "expected"), [(5, BundleError.exit_code), (9, 9), (1, 11), (3, 3), (99, 11), (130, 11)]
)
def test_a_failure_carries_the_last_words_and_the_code_where_it_is_one_of_ours(code, expected):
    with Children(PYTHON) as children:
        children.start("device-1", [f"import sys\nsys.stderr.write('one\\nerror: two\\n')\nsys.exit({code})"])
        with pytest.raises(ChildFailed) as caught:
            list(children.events())
    assert str(caught.value) == f"device-1 ended with exit code {code}: one\nerror: two"
    assert caught.value.exit_code == expected


def test_only_the_last_twenty_lines_are_kept():
    with Children(PYTHON) as children:
        children.start("a", ["import sys\nfor i in range(500): sys.stderr.write('line %d\\n' % i)\nsys.exit(4)"])
        with pytest.raises(ChildFailed) as caught:
            list(children.events())
    assert str(caught.value).splitlines()[1:] == [f"line {i}" for i in range(481, 500)]
    assert str(caught.value).startswith("a ended with exit code 4: line 480\n")


def test_a_silent_failure_is_still_one():
    with Children(PYTHON) as children:
        children.start("a", ["raise SystemExit(7)"])
        with pytest.raises(ChildFailed, match="a ended with exit code 7: no message"):
            list(children.events())


def test_a_signal_is_named():
    with Children(PYTHON) as children:
        children.start("a", ["import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"])
        with pytest.raises(ChildFailed, match="a was ended by signal 9: no message") as caught:
            list(children.events())
        assert caught.value.exit_code == ChildFailed.exit_code


@pytest.mark.parametrize("line", ["no json", "null", "3", "[1]", '{"cut', "[" * 100_000, "\\xff\\xfe"])
def test_a_line_that_is_no_event_belongs_to_the_last_words(line):
    code = (
        f"import sys\nsys.stdout.buffer.write(b'{line}\\n')\nsys.stdout.flush()\nprint('{{\"event\": 1}}')\nsys.exit(6)"
    )
    with Children(PYTHON) as children:
        children.start("a", [code])
        events = children.events()
        assert next(events) == ("a", {"event": 1})
        with pytest.raises(ChildFailed) as caught:
            next(events)
        shown = "\ufffd\ufffd" if line.startswith("\\") else line
        assert str(caught.value) == f"a ended with exit code 6: {shown}"


def test_the_last_words_are_waited_for(monkeypatch):
    """The child and its standard output have ended, and the reason is still to be read."""
    really = Children._hear

    def late(*args):
        time.sleep(0.2)
        really(*args)

    monkeypatch.setattr(Children, "_hear", late)
    code = "import os\nos.write(2, b'the reason')\nos._exit(8)"
    with Children(PYTHON) as children:
        children.start("a", [code])
        with pytest.raises(ChildFailed, match="exit code 8: the reason"):
            list(children.events())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ZeroDivisionError])
def test_nothing_is_left_running_however_the_block_is_left(error):
    with pytest.raises(error), Children(PYTHON) as children:
        for name in ("a", "b"):
            children.start(name, [FOREVER])
        wait_until_ready(children, 2)
        assert all(map(runs, pids(children)))
        raise error
    assert not any(map(runs, pids(children)))


def test_one_failure_ends_the_others():
    with pytest.raises(ChildFailed, match="b ended with exit code 9"), Children(PYTHON) as children:
        children.start("a", [FOREVER])
        wait_until_ready(children)
        children.start("b", ["raise SystemExit(9)"])
        list(children.events())
    assert not any(map(runs, pids(children)))


def test_children_end_in_order_when_they_can():
    code = (
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit('saved'))\n"
        + FOREVER.partition("\n")[2]
    )
    with Children(PYTHON) as children:
        children.start("a", [code])
        wait_until_ready(children)
    (process,) = children._processes.values()
    assert process.returncode == 1 and children._words["a"] == ["saved"]


def test_a_child_that_will_not_end_is_killed(monkeypatch):
    monkeypatch.setattr(processes, "GRACE_S", 0.2)
    really, waits = subprocess.Popen.wait, []

    def wait(self, timeout=None):
        waits.append(timeout)
        return really(self, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", wait)
    with Children(PYTHON) as children:
        for name in ("a", "b", "c"):
            children.start(name, [DEAF])
        wait_until_ready(children, 3)
    assert not any(map(runs, pids(children)))
    assert [process.returncode for process in children._processes.values()] == [-signal.SIGKILL] * 3
    # Not by the clock, which other processes on this machine would stretch: no wait was for longer than that.
    assert waits[0] is not None and all(seconds is None or seconds <= 0.2 for seconds in waits)


def test_a_second_interrupt_while_stopping_still_leaves_nothing(monkeypatch):
    really = subprocess.Popen.wait

    def wait(self, timeout=None):
        if timeout is not None:
            raise KeyboardInterrupt
        return really(self)

    with pytest.raises(KeyboardInterrupt), Children(PYTHON) as children:
        children.start("a", [DEAF])
        children.start("b", [DEAF])
        wait_until_ready(children, 2)
        monkeypatch.setattr(subprocess.Popen, "wait", wait)
    assert not any(map(runs, pids(children)))
    monkeypatch.undo()
    children.stop()  # closes the pipes that the interrupt left open


def test_a_signal_while_a_child_starts_leaves_nothing(monkeypatch):
    really, started = subprocess.Popen, []

    def popen(*args, **options):
        started.append(really(*args, **options))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)  # it has come before the process is known to anyone
        return started[0]

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    monkeypatch.setattr(subprocess, "Popen", popen)
    try:
        with pytest.raises(KeyboardInterrupt), Children(PYTHON) as children:
            children.start("a", [FOREVER])
        assert not any(runs(process.pid) for process in started) and len(started) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
        started[0].kill()


def test_no_child_starts_once_they_were_stopped():
    children = Children(PYTHON)
    children.stop()
    with pytest.raises(RuntimeError, match="after its parent had stopped all"):
        children.start("a", [FOREVER])
    assert pids(children) == []


def test_a_program_that_is_not_there():
    with Children(("/no/such/program",)) as children, pytest.raises(FileNotFoundError, match="/no/such/program"):
        children.start("a", [])


def test_stopping_twice_is_no_error():
    children = Children(PYTHON)
    children.start("a", ["pass"])
    assert list(children.events()) == []
    children.stop()
    children.stop()


def test_no_children_no_events():
    with Children() as children:
        assert list(children.events()) == []
