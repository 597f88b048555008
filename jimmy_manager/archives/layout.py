"""Every file name in a store, and the only place that makes or parses one.

Names are POSIX strings relative to the store's directory, such as ``stats/ab/abcdef12.g3.json``.
Generations and commits are numbers: ``g10`` comes after ``g9``, so names are parsed, never sorted.
A name that does not match its archive's pattern to the letter is not part of the store (a key of 12
digits never matches where one of 8 is looked for, as a glob would).
"""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

STORE_FILE = "store.yaml"
STOP_FILE = "stop.json"
"""The newest request that every worker save and leave."""
ARCHIVES = ("configs", "claims", "ckpts", "previews", "stats")
CODE = "code"
"""Sources of jobs and the trees that name them, each under the SHA-256 of its bytes; they belong to no one run."""
DAMAGED = "damaged"
"""Where ``check --fix`` moves what it cannot read; nothing is read from there."""
DOCTOR = ".doctor"
"""Where ``jimmy doctor`` tries things out, and meets the one on another node; gone when it is done."""

_KEY = r"(?P<key>[0-9a-f]{4,64})"
_GENERATION = r"\.g(?P<generation>[1-9][0-9]{0,8})"
_COMMIT = r"\.c(?P<commit>0|[1-9][0-9]{0,8})"
_LABEL = r"(?P<label>[A-Za-z0-9_-]{1,64})"
_PATTERNS = {
    "configs": re.compile(_KEY + r"\.json"),
    "claims": re.compile(_KEY + _GENERATION + r"\.json"),
    "stats": re.compile(_KEY + _GENERATION + r"\.json"),
    "ckpts": re.compile(_KEY + _GENERATION + _COMMIT + r"\.pt"),
    "previews": re.compile(_KEY + _GENERATION + _COMMIT + rf"(?:\.json|\.{_LABEL}\.png)"),
}
_EVALS = re.compile(r"evals" + _GENERATION + r"\.jsonl")
_STOP = re.compile(_KEY + _GENERATION + r"\.stop")
_SHARD = re.compile(r"[0-9a-f]{2}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SCRATCH = re.compile(r"\.(?P<target>.+)\.[0-9a-f]{16}")


class Parsed(NamedTuple):
    """What a file name says: which archive, run, generation and commit; zeros where it says nothing."""

    archive: str
    key: str
    generation: int = 0
    commit: int = 0
    label: str = ""


def is_key(text: str) -> bool:
    """Whether ``text`` has the form of a whole key.

    >>> is_key("abcdef12"), is_key("../etc"), is_key("ABCDEF12")
    (True, False, False)
    """
    return re.fullmatch(_KEY, text) is not None


def shard(archive: str, key: str) -> str:
    """The folder that holds the files of ``key`` in ``archive``."""
    return f"{archive}/{key[:2]}"


def is_shard(folder: str) -> bool:
    """Whether ``folder`` (its last part only) is a shard's name."""
    return _SHARD.fullmatch(folder) is not None


def config(key: str) -> str:
    """The configuration's record."""
    return f"configs/{key[:2]}/{key}.json"


def claim(key: str, generation: int) -> str:
    """The claim of one generation."""
    return f"claims/{key[:2]}/{key}.g{generation}.json"


def stop(key: str, generation: int) -> str:
    """The request that the owner of one generation save and leave."""
    return f"claims/{key[:2]}/{key}.g{generation}.stop"


def stats(key: str, generation: int) -> str:
    """The commit point of one generation."""
    return f"stats/{key[:2]}/{key}.g{generation}.json"


def ckpt(key: str, generation: int, commit: int) -> str:
    """The checkpoint of one commit; commit 0 is the one adopted from a lower generation."""
    return f"ckpts/{key[:2]}/{key}.g{generation}.c{commit}.pt"


def preview(key: str, generation: int, commit: int) -> str:
    """The preview of one commit."""
    return f"previews/{key[:2]}/{key}.g{generation}.c{commit}.json"


def figure(key: str, generation: int, commit: int, label: str) -> str:
    """One figure of a preview; ``label`` has been checked by whoever made the preview."""
    return f"previews/{key[:2]}/{key}.g{generation}.c{commit}.{label}.png"


def evals(key: str, generation: int) -> str:
    """The numbers of each evaluation in one generation."""
    return f"logs/{key[:2]}/{key}/evals.g{generation}.jsonl"


def logs(key: str) -> str:
    """The folder of TensorBoard events and of what was evaluated."""
    return f"logs/{key[:2]}/{key}"


def code(digest: str) -> str:
    """What has this SHA-256: a source file of a job, a tree of such, or the diff of a working tree."""
    return f"{CODE}/{digest[:2]}/{digest}"


def is_digest(text: object) -> bool:
    """Whether ``text`` is a SHA-256 as names in ``code`` and records spell it.

    >>> is_digest("ab" * 32), is_digest("AB" * 32), is_digest(None)
    (True, False, False)
    """
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def parse(archive: str, file_name: str) -> Parsed | None:
    """What ``file_name`` (without its folder) names in ``archive``; None when it is no name of ours.

    >>> parse("ckpts", "abcdef12.g3.c12.pt")
    Parsed(archive='ckpts', key='abcdef12', generation=3, commit=12, label='')
    >>> parse("ckpts", "abcdef12.g03.c12.pt") is None
    True
    """
    match = _PATTERNS[archive].fullmatch(file_name)
    if match is None:
        return None
    found = match.groupdict(default="")
    generation, commit = int(found.get("generation") or 0), int(found.get("commit") or 0)
    return Parsed(archive, found["key"], generation, commit, found.get("label", ""))


def parse_stop(file_name: str) -> Parsed | None:
    """What a request to leave names; None for every other file among the claims.

    >>> parse_stop("abcdef12.g3.stop")
    Parsed(archive='claims', key='abcdef12', generation=3, commit=0, label='')
    """
    match = _STOP.fullmatch(file_name)
    return Parsed("claims", match["key"], int(match["generation"])) if match else None


def parse_evals(file_name: str) -> int:
    """The generation whose evaluations a file among the logs of a run holds; 0 for every other file.

    >>> parse_evals("evals.g3.jsonl"), parse_evals("evals.g03.jsonl")
    (3, 0)
    """
    match = _EVALS.fullmatch(file_name)
    return int(match["generation"]) if match else 0


def scratch(name: str) -> str:
    """A name beside ``name`` that no other writer on any host can pick.

    With a fixed suffix two writers would share one scratch file and rename each other's halves.
    """
    folder, _, last = name.rpartition("/")
    return f"{folder}/.{last}.{secrets.token_hex(8)}" if folder else f".{last}.{secrets.token_hex(8)}"


def scratch_target(file_name: str) -> str | None:
    """The name that the scratch file ``file_name`` was meant for, or None where it is no scratch file.

    >>> scratch_target(".abcdef12.g3.json.0123456789abcdef")
    'abcdef12.g3.json'
    """
    match = _SCRATCH.fullmatch(file_name)
    return match["target"] if match else None
