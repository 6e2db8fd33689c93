"""What the large libraries say of themselves, each asked in a process of its own: a broken one takes nothing with it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from compressor.processes import same_imports

PATIENCE = 120
"""Seconds that importing one may take: on a cold disk torch took 20."""
QUESTIONS = {
    "torch": "import torch\n"
    "gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]\n"
    "found = {'cuda': torch.version.cuda, 'gpus': gpus, 'threads': torch.get_num_threads()}",
    "transformers": "from transformers import AutoModelForSequenceClassification\nfound = {}",
    "datasets": "import datasets\nfound = {}",
    "onnx": "import onnx\nfound = {}",
    "onnxruntime": "import onnxruntime\nfound = {'providers': onnxruntime.get_available_providers()}",
}
"""By the library: what is run, which leaves the answer in ``found``."""
ENDING = "\nimport json\nprint('\\nfound ' + json.dumps(found))"


def answers() -> dict[str, dict[str, Any]]:
    """Import every library, all at the same time.

    Returns:
        By the library what it says of itself, or ``{"error": the last line of what went wrong}``.
    """
    started = {
        name: subprocess.Popen(  # noqa: S603 - our own interpreter and lines
            [sys.executable, "-P", "-c", QUESTIONS[name] + ENDING],
            env=same_imports(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in QUESTIONS
    }
    return {name: _answer(process) for name, process in started.items()}


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    try:
        said, went_wrong = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"error": f"no answer within {PATIENCE} s"}
    if process.returncode:
        lines = went_wrong.strip().splitlines()
        return {"error": lines[-1] if lines else f"Python ended with {process.returncode}"}
    answer: dict[str, Any] = json.loads(said.rpartition("found ")[2])
    return answer
