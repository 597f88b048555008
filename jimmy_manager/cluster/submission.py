"""The batch script of an array of workers: the template filled in, the folder of its output, and ``sbatch``.

The template is ``jobs/worker.sbatch`` of the repository, which is a link to the file beside this module; so there is
one of them, and an installed package has it.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jimmy_manager import slurm
from jimmy_manager.errors import ConfigError, SlurmError

TEMPLATE = Path(__file__).with_name("worker.sbatch")

_DIRECTIVE = re.compile(r"#SBATCH\s+(.*)")
_SWEEP = re.compile(r"(^|.*\s)jimmy (?:sweep|worker)\s.*")
_SIGNAL_S = 120
_LONG = {"-o": "--output", "-e": "--error", "-J": "--job-name", "-t": "--time"}
_SETTINGS = (
    "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_DEBUG_FLAGS", "SLURM_EXIT_ERROR", "SLURM_JWT",
    "SLURM_TIME_FORMAT",
)  # fmt: skip
"""What people set for Slurm's commands; within a job all else of ``SLURM_`` tells of that job."""


class Submitted(NamedTuple):
    """What ``sbatch`` answered: the job's number, and its cluster where there are several."""

    job: str
    cluster: str


def fill(template: str, own: Mapping[str, str], further: Sequence[str], command: Sequence[str]) -> str:
    r"""``template`` with ``own`` options in the place of their namesakes, ``further`` ones, and ``command`` to run.

    ``further`` are words as ``sbatch`` takes them; they come last and thereby overrule. ``command`` stands for the
    template's ``jimmy sweep ...``; what is before that (``exec``, a container) stays. ``ConfigError`` where there is no
    such line.

    >>> print(fill('#!/bin/sh\n#SBATCH --time=1\nexec jimmy sweep x', {'time': '2'}, ['-p', 'low'], ['a b']), end='')
    #!/bin/sh
    #SBATCH --time=2
    #SBATCH -p low
    exec 'a b'
    """
    left, lines = dict(own), []
    for line in template.splitlines():
        name = _name(line)
        if name not in own:
            lines.append(line)
        elif name in left:
            lines.append(_directive(name, left.pop(name)))
    place = 1 + max((number for number, line in enumerate(lines) if _DIRECTIVE.match(line)), default=0)
    lines[place:place] = [_directive(name, value) for name, value in left.items()]
    if further:
        lines.insert(place + len(left), f"#SBATCH {_one_line(shlex.join(further))}")
    return "\n".join(_with_command(lines, command)) + "\n"


def array_of(workers: str) -> str:
    """The array that ``sbatch`` takes, of a number of tasks; anything else is ``sbatch``'s own notation.

    >>> array_of('32'), array_of('32%8'), array_of('0-62:2')
    ('1-32', '1-32%8', '0-62:2')
    """
    found = re.fullmatch(r"([0-9]+)(?:%([0-9]+))?", workers)
    if found is None:
        return workers
    for count, what in zip(found.groups(), ("0 workers", "at most 0 at a time"), strict=True):
        if count is not None and not int(count):
            raise ConfigError(f"{workers!r}: {what} would train nothing")
    return f"1-{workers}"


def time_of(further: Sequence[str]) -> str | None:
    """The ``--time`` among words for ``sbatch``; None where there is none."""
    return _options(f"#SBATCH {shlex.join(further)}").get("--time")


def signal_of(time: str) -> str | None:
    """The ``--signal`` of a job so short that the template's would come before its half; None for all others.

    >>> signal_of('1'), signal_of('4'), signal_of('0')
    ('B:USR2@15', None, None)
    """
    try:
        limit_s = 60 * math.ceil(slurm.parse_duration(time) / 60)  # as Slurm rounds it
    except ConfigError:
        return None  # sbatch knows more words, and has its own for what is no time
    if not limit_s:  # to Slurm that is no limit
        return None
    return None if limit_s >= 2 * _SIGNAL_S else f"B:USR2@{int(limit_s / 4)}"


def names_its_job(script: str) -> bool:
    """Whether ``script`` sets ``--job-name``, without which ``%x`` of a script on stdin is ``(null)``."""
    return "--job-name" in _options(script)


def make_output_folders(script: str) -> None:
    """Create the folders of ``--output`` and ``--error``, without which a job dies and tells nobody why."""
    given = _options(script)
    for name in (given.get("--output", ""), given.get("--error", "")):
        folder = Path(given.get("--chdir", ""), name).parent
        if name and "%" not in str(folder):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                reason = error.strerror or error
                raise ConfigError(f"cannot make {str(folder)!r} for the output of the workers: {reason}") from error


def outputs(script: str, job: str) -> str:
    """A pattern of the shell for the files into which the tasks of ``job`` print, as far as the script tells."""
    given = _options(script)
    name = given.get("--output") or "slurm-%A_%a.out"
    known = {"%x": given.get("--job-name", "*"), "%A": job, "%a": "*", "%j": "*", "%N": "*", "%n": "*", "%t": "*"}
    return re.sub("%[xAajNnt]", lambda found: known[found[0]], name)


def submit(script: str, options: Sequence[str]) -> Submitted | int:
    """Give ``script`` to ``sbatch``, with ``options`` once more, so that no ``SBATCH_`` variable overrules them.

    Of a job that this process belongs to the new one inherits nothing.

    The exit code of ``sbatch`` where it refuses; it tells the reason itself, on stderr. ``SlurmError`` where there is
    no ``sbatch``.
    """
    program = shutil.which("sbatch")
    if program is None:
        raise SlurmError(
            "there is no sbatch here; print the script with --dry-run, and give it to sbatch on a login node of the "
            "cluster that sees the same directories"
        )
    command = [program, "--parsable", *options]
    done = subprocess.run(command, input=script, stdout=subprocess.PIPE, text=True, env=_environment(), check=False)
    if done.returncode:
        return done.returncode if done.returncode > 0 else 128 - done.returncode
    job, _, cluster = done.stdout.strip().partition(";")
    if not job.isdecimal():
        raise SlurmError(f"sbatch answered {done.stdout!r} instead of a job's number; look for the job with squeue")
    return Submitted(job, cluster)


def _environment() -> dict[str, str]:
    is_in_job = slurm.job_of(os.environ) is not None
    foreign = [name for name in os.environ if is_in_job and name.startswith("SLURM_") and name not in _SETTINGS]
    return {name: value for name, value in os.environ.items() if name not in foreign}


def _name(line: str) -> str:
    """The long name of the option that a line sets, where it sets just one."""
    found = _DIRECTIVE.match(line)
    words = shlex.split(found[1], comments=True) if found else []
    is_one = len(words) == 1 or (len(words) == 2 and "=" not in words[0] and not words[1].startswith("-"))
    return words[0].removeprefix("--").partition("=")[0] if is_one and words[0].startswith("--") else ""


def _directive(name: str, value: str) -> str:
    return f"#SBATCH --{name}={_one_line(shlex.quote(value))}"


def _one_line(text: str) -> str:
    if "\n" in text:
        raise ConfigError(f"a batch script cannot hold {text!r}: Slurm ends an option at a line's end")
    return text


def _with_command(lines: list[str], command: Sequence[str]) -> list[str]:
    for number, line in reversed(list(enumerate(lines))):
        found = _SWEEP.fullmatch(line)
        if found and not line.lstrip().startswith("#"):
            return [*lines[:number], found[1] + shlex.join(command), *lines[number + 1 :]]
    raise ConfigError("the script has no line with 'jimmy sweep JOB', which is what is filled in")


def _options(script: str) -> dict[str, str]:
    """The options of the ``#SBATCH`` lines that have a value, by name; the last of each counts, as for Slurm."""
    directives = (found[1] for line in script.splitlines() if (found := _DIRECTIVE.match(line)))
    words = [word for each in directives for word in shlex.split(each, comments=True)]
    options: dict[str, str] = {}
    for word, after in zip(words, [*words, ""][1:], strict=True):
        name, equals, value = word.partition("=")
        if re.match(r"-[a-zA-Z].", word):  # -oFILE
            name, equals, value = word[:2], "=", word[2:]
        options[_LONG.get(name, name)] = value if equals else after
    return options
