"""``python -m edgekit.runtime.enroll --name NAME -o DIR``: a key and a certificate request, made on this device.

It needs the program openssl and Python's standard library alone. ``edgekit enroll request`` is the same command.
"""

import argparse
import sys
from typing import List, Optional

from edgekit.runtime.identity import folder
from edgekit.runtime.program import exit_code

EXAMPLES = """then, where the server is:
  edgekit enroll sign SERVER_DIR device.csr -o signed      writes device.pem and ca.pem: bring both back to DIR

and here:
  edgekit run bundle --server HOST:PORT --identity DIR

A key that DIR has is used again, for a certificate that goes on where the old one ends."""


def main(arguments: Optional[List[str]] = None, program: str = "python -m edgekit.runtime.enroll") -> int:
    """Makes a key and a request; returns the exit code (see `edgekit.errors`)."""
    p = argparse.ArgumentParser(
        prog=program,
        description="Make this device's private key, which stays here, and a request for its certificate.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--name", required=True, help="the device's name at the server, which no other one has")
    p.add_argument("-o", "--out", metavar="DIR", required=True, help="folder of this device's identity")
    options = p.parse_args(arguments)
    return exit_code(lambda: _request(options.out, options.name))


def _request(out: str, name: str) -> None:
    path = folder.request(out, name)
    sys.stdout.write("{}\n".format(path))
    told = "next: take {} to the server, sign it there (`edgekit enroll sign`), bring {} and {} back to {}\n"
    sys.stderr.write(told.format(path, folder.CERTIFICATE, folder.CA, out))


if __name__ == "__main__":
    sys.exit(main())
