"""A lock file against the present: every difference at once, and which of them stop a replay.

What decides the bytes of the result refuses: options, seed, weights, config, rows (exit code 2), and versions of
libraries and plugins, Python's feature release and the class of the device (exit code 3). What may change rounding (or latency tables), and
usually does not, is only said: the CPU, its features, the number of threads, the GPU, the platform, Python's patch
release. Where the recipe says where things *are* (the model, the files of the task and of steps, the revision of a data
set), their contents decide.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from compressor.errors import InputError, SetupError
from compressor.recipe.lock import Lock, flat

NOTHING = "nothing"
UNCOMPARED = ("digest", "source", "overrides", "recipe.name", "inputs.model_revision", "inputs.calibration")
"""What is no cause: paths, and what is compared otherwise."""
PLACES = ("recipe.model", "recipe.revision", "recipe.task.dataset.revision")
HASH = "sha256"
"""Ends the names of inputs that decide; the others say where rows come from."""
SHOWN = 8
"""Rows that a difference names."""

Weight = Literal["input", "environment", "note"]


@dataclass(frozen=True)
class Difference:
    """Something that is not as it was locked.

    Attributes:
        what: path in the lock file: ``recipe.steps.0.prune.damping``.
        locked: its value there.
        present: its value now.
        weight: ``input`` and ``environment`` refuse a replay, a ``note`` does not.
    """

    what: str
    locked: Any
    present: Any
    weight: Weight

    def __str__(self) -> str:
        return f"{self.what}: locked {_shown(self.locked)}, present {_shown(self.present)}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def check_locked(lock: Lock, present: Mapping[str, Any], *, files: Collection[str] = ()) -> list[Difference]:
    """Compare everything that is locked with the present; return the differences that do not matter by themselves.

    Args:
        lock: the lock file.
        present: facts of the run that is about to begin.
        files: that options of steps name, and whose hashes are among the facts.

    Raises:
        InputError: what is asked or read differs; all differences are named.
        SetupError: nothing but what it runs with differs.
    """
    found = list(differences(lock.facts, json.loads(json.dumps(present)), files))
    refusing = [one for one in found if one.weight != "note"]
    if not refusing:
        return found
    lines = [f"  {one}{' (does not refuse by itself)' if one.weight == 'note' else ''}" for one in found]
    error = InputError if any(one.weight == "input" for one in refusing) else SetupError
    count = f"{len(refusing)} thing{'s are' if len(refusing) > 1 else ' is'}"
    raise error(
        f"{lock.path}: {count} not as locked:\n" + "\n".join(lines),
        hint="restore what is locked, or run without --locked",
    )


def differences(locked: Mapping[str, Any], present: Mapping[str, Any], files: Collection[str]) -> Iterator[Difference]:
    """Yield what differs, in the order of the lock file."""
    then, now = dict(flat(locked)), dict(flat(present))
    found = []
    for path in {**then, **now}:
        one, other = then.get(path, NOTHING), now.get(path, NOTHING)
        if one != other and not _under(path, UNCOMPARED):
            found.append(Difference(path, one, other, _weight(path, one, other, files)))
    yield from found
    yield from _rows(locked, present)
    digests = locked.get("digest"), present.get("digest")
    if digests[0] != digests[1] and not any(_under(one.what, ("recipe", "providers", "environment")) for one in found):
        yield Difference("digest", *digests, "input")  # somebody edited the recipe in the lock file


def _weight(path: str, locked: Any, present: Any, files: Collection[str]) -> Weight:
    if _under(path, PLACES) or (_under(path, ("recipe.task",)) and _is_place(present)):
        return "note"
    if _under(path, ("recipe.steps",)) and _are_moved(locked, present, files):
        return "note"
    if path == "environment.python" and _feature_release(locked) == _feature_release(present):
        return "note"
    if path == "environment.platform" or (_under(path, ("hardware",)) and path != "hardware.device"):
        return "note"
    if _under(path, ("inputs",)) and not path.endswith(HASH):
        return "note"
    return "input" if _under(path, ("recipe", "inputs")) else "environment"


def _under(path: str, roots: Sequence[str]) -> bool:
    return any(path == root or path.startswith(f"{root}.") for root in roots)


def _is_place(value: Any) -> bool:
    return isinstance(value, str) and Path(value).expanduser().exists()


def _are_moved(locked: Any, present: Any, files: Collection[str]) -> bool:
    """Tell whether an option named a file or a list of them, and names as many now."""
    then, now = ([value] if isinstance(value, str) else value for value in (locked, present))
    if type(locked) is not type(present) or not isinstance(now, list) or len(then) != len(now):
        return False
    return bool(now) and all(one in files for one in now)


def _feature_release(version: Any) -> list[str]:
    return str(version).split(".")[:2]


def _rows(locked: Mapping[str, Any], present: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield which rows were drawn for calibration, then and now, or which of the same rows are others."""
    then, now = (side.get("inputs", {}).get("calibration") or {} for side in (locked, present))
    if then == now:
        return
    digests = [dict(zip(side.get("ids", ()), side.get("row_sha256", "").split(), strict=False)) for side in (then, now)]
    gone, new = ([number for number in one if number not in other] for one, other in (digests, digests[::-1]))
    if gone or new:
        yield Difference("inputs.calibration.ids", f"also rows {_few(gone)}", f"also rows {_few(new)}", "input")
    changed = [number for number in digests[0] if digests[1].get(number, digests[0][number]) != digests[0][number]]
    if changed:
        which = f"inputs.calibration: rows {_few(changed)} of the train split"
        one, other = (" ".join(side[number] for number in changed[:SHOWN]) for side in digests)
        yield Difference(which, one, other, "input")
    if not (gone or new or changed):
        yield Difference("inputs.calibration.sha256", then.get("sha256", NOTHING), now.get("sha256", NOTHING), "input")


def _few(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return (", ".join(str(number) for number in numbers[:SHOWN]) or "none") + more


def unreproduced(lock: Lock, outputs: Mapping[str, str]) -> list[Difference]:
    """Return which files are not, byte for byte, those that the lock file is of."""
    names = dict.fromkeys([*lock.outputs, *outputs])
    pairs = ((name, lock.outputs.get(name, NOTHING), outputs.get(name, NOTHING)) for name in names)
    return [Difference(name, one, other, "input") for name, one, other in pairs if one != other]
