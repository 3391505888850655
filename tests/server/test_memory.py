import platform
import subprocess
import sys

import pytest

#: Eight threads that take memory at the same time; the C library then says on standard error which arenas there are.
PROGRAM = """
import ctypes, sys, threading
from edgekit.server.memory import few_arenas

if sys.argv[1] == "few":
    few_arenas()
c = ctypes.CDLL(None)
together = threading.Barrier(8)

def take():
    together.wait()
    for _ in range(100):
        c.free(c.malloc(5000))
    together.wait()

c.malloc.restype, c.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
threads = [threading.Thread(target=take) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
c.malloc_stats()
"""


@pytest.mark.parametrize("which", ["few", "as ever"])
def test_threads_share_their_memory(which: str) -> None:
    if "glibc" not in platform.libc_ver()[0]:
        pytest.skip("another C library than glibc")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, which], capture_output=True, text=True, timeout=300, check=True
    )
    assert (done.stderr.count("Arena ") <= 2) == (which == "few"), done.stderr


#: Holes: of blocks that fill whole pages every second one is free.
HOLES = """
import ctypes, time
from edgekit.server.memory import return_free

c = ctypes.CDLL(None)
c.malloc.restype, c.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
blocks = [c.malloc(65536) for _ in range(2000)]
for block in blocks:
    ctypes.memset(block, 1, 65536)
for block in blocks[::2]:
    c.free(block)

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

before, end = resident(), time.monotonic() + 120
return_free(0.01)
while resident() > before * 0.75 and time.monotonic() < end:
    time.sleep(0.01)
print(resident() / before)
"""


def test_free_memory_goes_back_to_the_system() -> None:
    if "glibc" not in platform.libc_ver()[0]:
        pytest.skip("another C library than glibc")
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, timeout=300, check=True)
    assert float(done.stdout) <= 0.75, done
