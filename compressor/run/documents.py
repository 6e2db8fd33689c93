"""What people read of a finished run or sweep: ``report.html``, ``README.md`` and a sweep's ``sweep.csv``. No torch.

All are made from its JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressor.errors import InputError
from compressor.model.files import write_text
from compressor.verify.page import report_page, sweep_page
from compressor.verify.report import SCHEMA_VERSION, model_card, sweep_card
from compressor.verify.spreadsheet import spreadsheet

REPORT, SWEEP = "report.json", "sweep.json"
PAGE, CARD, SHEET = "report.html", "README.md", "sweep.csv"


def documents(report: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of the files that people read, by file name, of a run's report or a sweep's."""
    if "sweep" in report:
        return {PAGE: sweep_page(report), CARD: sweep_card(report), SHEET: spreadsheet(report)}
    return {PAGE: report_page(report), CARD: model_card(report)}


def write_documents(report: Mapping[str, Any], root: Path) -> None:
    """Write them; what is there already is replaced."""
    for name, words in documents(report).items():
        write_text(root / name, words)


def rewrite_documents(directory: Path) -> dict[str, Any]:
    """Write the documents of a finished run or sweep again, from its JSON; return that.

    Raises:
        InputError: the directory is no finished run or sweep, or its JSON is damaged or of another schema version.
    """
    report = read_report(directory)
    try:
        write_documents(report, directory)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{directory}: its report is damaged: {error!r}", hint="run the recipe again") from error
    except OSError as error:
        raise InputError(f"{directory}: cannot be written to: {error.strerror}") from error
    return report


def read_report(directory: Path) -> dict[str, Any]:
    """Return what the JSON of a finished run or sweep holds.

    Raises:
        InputError: there is none, or it is damaged or of another schema version.
    """
    path = next((directory / name for name in (REPORT, SWEEP) if (directory / name).is_file()), None)
    if path is None:
        missing = "no such directory" if not directory.is_dir() else f"not a finished run: {REPORT} missing"
        raise InputError(f"{directory}: {missing}", hint="name the directory that compress apply or sweep wrote")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    version = report.get("schema_version") if isinstance(report, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path}: expected schema_version {SCHEMA_VERSION}, got {version}",
            hint="use the version of compressor-onnx that wrote it (recipe.lock.yaml names it)",
        )
    found: dict[str, Any] = report
    return found
