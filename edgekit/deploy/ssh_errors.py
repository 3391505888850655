"""What ssh's own errors mean, and what to do about each."""

import re

from edgekit.errors import DeployError

#: (what it means, what to do) when the connection had been open before.
BROKEN = ("the connection broke", "the same command goes on where it broke")
#: (pattern of what ssh says, what it means, what to do); the first that matches counts.
MEANINGS = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the one that this machine knows",
        "if it was installed anew, compare the fingerprint there (ssh-keygen -lf /etc/ssh/ssh_host_*.pub) "
        "and then `ssh-keygen -R` its address as written below; else somebody may answer in its place",
    ),
    (
        "Host key verification failed|No .* host key is known",
        "its host key is not known to this machine",
        "connect once by hand (`ssh`, same options), compare the fingerprint and accept it",
    ),
    (
        "Too many authentication failures",
        "too many keys were offered",
        "name the right one: --ssh 'ssh -i KEY -o IdentitiesOnly=yes'",
    ),
    (
        "Permission denied",
        "it accepts no key or password of yours",
        "check the user in --host USER@BOARD; `ssh-copy-id` puts your key there, --ssh 'ssh -i KEY' names one",
    ),
    (
        "Could not resolve hostname|Name or service not known",
        "its name is not known",
        "check --host, or give its IP address",
    ),
    (
        "Connection refused",
        "nothing answers at that port",
        "is the board up, and does sshd run there? Another port: --ssh 'ssh -p PORT'",
    ),
    (
        "[Tt]imed out|not responding",
        "it does not answer in time",
        "is it switched on, and is this the right address and network? A slow line: --ssh 'ssh -o ConnectTimeout=60'",
    ),
    (
        "No route to host|Network is unreachable",
        "there is no way to it from this machine",
        "check its address and the network of both",
    ),
    (
        "kex_exchange_identification|banner exchange|Connection closed by .* port",
        "something accepted the connection and closed it before a login",
        "is it sshd that listens there? A busy or guarded sshd does this too: wait and try again",
    ),
    (
        "[Bb]roken pipe|Connection reset|Connection closed|closed by remote host|client_loop|mux_client|Control socket",
        *BROKEN,
    ),
    (
        "Bad configuration option|[Ii]llegal option|unknown option|no argument after keyword",
        "ssh does not take its options",
        "check --ssh and your ssh configuration",
    ),
)  # fmt: skip


def explain(host: str, words: str, broken: bool = False) -> DeployError:
    """The error for what ssh said when it could not reach `host`, or lost it; it quotes all of ssh's words."""
    words = "\n".join(line.rstrip() for line in words.splitlines() if line.strip())
    for pattern, meaning, advice in ((".*", *BROKEN),) if broken else MEANINGS:
        if re.search(pattern, words):
            return DeployError(f"{host}: {meaning}; {advice}\nssh said: {words}")
    return DeployError(f"{host} cannot be reached; try `ssh` by hand\nssh said: {words or 'nothing'}")
