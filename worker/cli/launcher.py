"""Executes a command that dies with its owner.

Usage: python -I -S launcher.py OWNER_PID SIGNAL ACCOUNT COMMAND [ARGUMENT ...]

A script of its own, standard library only. What must happen between fork and exec happens here,
where there is one thread; in the owner, which has several, it could deadlock.
ACCOUNT is `self`, `nobody`, or `namespace`: root's files, under a uid that is not root's.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import sys

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000
_NOT_EXECUTED = 127


def _libc_call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _become_nobody() -> None:
    entry = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def _enter_namespace() -> None:
    """Maps uid 65534 inside to root outside: an ordinary uid that owns root's files."""
    _libc_call("unshare", _CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", "65534 0 1"), ("gid_map", "65534 0 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _die_with(owner: int, signal_number: int) -> None:
    if sys.platform != "linux":
        return  # elsewhere the next start sweeps what was left
    # After the change of account: that clears it.
    _libc_call("prctl", _PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != owner:  # gone before the request was made
        raise SystemExit(_NOT_EXECUTED)


def _launch(owner: str, signal_number: str, account: str, *command: str) -> None:
    if account == "nobody":
        _become_nobody()
    elif account == "namespace":
        _enter_namespace()
    _die_with(int(owner), int(signal_number))
    os.execv(command[0], command)


if __name__ == "__main__":
    try:
        _launch(*sys.argv[1:])
    except (OSError, KeyError) as error:
        print(f"{sys.argv[4]} could not be started: {error}", file=sys.stderr)
        raise SystemExit(_NOT_EXECUTED) from error
