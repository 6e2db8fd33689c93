"""Reports as plain data, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from compressor.verify.environment import environment


def spread(value: float, half: float) -> dict[str, float]:
    return {"value": value, "lower": value - half, "upper": value + half, "confidence": 0.95}


def latency(model: str, ratio: float, *, slow_fusion: bool = False) -> dict[str, Any]:
    times = {"p50": 28.8 * ratio, "p90": 30.1 * ratio, "p95": 31.9 * ratio}
    return {
        "model": model,
        "batch": 1,
        "sequence": 128,
        "threads": 1,
        "provider": "cpu",
        "slow_fusion": slow_fusion,
        "rounds": 15,
        "wall_ms": times,
        "cpu_ms": times,
        "clock": "cpu",
        "ratio": spread(ratio, 0.01 if ratio != 1 else 0.0),
        "wall_ratio": spread(ratio, 0.02),
        "control": spread(1.013, 0.004),
    }


def run_report() -> dict[str, Any]:
    """Return a report whose latency gate failed."""
    return {
        "recipe": {
            "name": "minilm-mrpc",
            "digest": "0123abcd",
            "seed": 0,
            "model": "sentence-transformers/all-MiniLM-L6-v2",
            "task": {"name": "glue", "subset": "mrpc"},
        },
        "environment": environment(),
        "model": {
            "parameters": {"dense": 22_713_986, "compressed": 18_455_040},
            "encoder_macs": {"dense": 5.73e8, "compressed": 3.436e8, "sequence": 52.8672},
            "bytes": {"dense": 90_900_000, "compressed": 73_800_000},
        },
        "quality": {
            "rows": 408,
            "metric": "accuracy",
            "dense": {"accuracy": 0.7941, "f1": 0.8552},
            "compressed": {"accuracy": 0.7819, "f1": 0.8481},
            "difference": spread(-0.0122, 0.022),
            "churn": 0.054,
            "lost": 0.033,
            "gained": 0.021,
            "kl": 0.0213,
        },
        "latency": [
            latency("dense", 1.0),
            latency("compressed", 0.612),
            latency("dense", 1.0, slow_fusion=True),
            latency("compressed", 0.655, slow_fusion=True),
        ],
        "gates": [
            {"name": "macs", "limit": 0.6, "value": 0.5997, "lower": None, "upper": None, "verdict": "pass"},
            {
                "name": "latency, batch 1, length 128, 1 thread",
                "limit": 0.5,
                "value": 0.612,
                "lower": 0.6,
                "upper": 0.624,
                "verdict": "fail",
            },
        ],
        "passed": False,
    }


def full_report() -> dict[str, Any]:
    """Return a report of a run that quantised, with all files, all parts and a dropped layer."""
    report = run_report()
    models = {"dense": 1.0, "dense int8": 0.45, "compressed": 0.61, "compressed fused": 0.58, "compressed int8": 0.27}
    rows = [
        {**latency(model, ratio, slow_fusion=slow), "sequence": sequence}
        for slow in (False, True)
        for sequence in (32, 128)
        for model, ratio in models.items()
    ]
    for row in rows:
        value = row["ratio"]["value"] * (1.02 if row["slow_fusion"] else 1.0)
        against = {"model": "dense", "slow_fusion": False, "ratio": spread(value, 0.01)}
        row["against"] = dict.fromkeys(("best dense", "best int8 alone"), against)
    quality = {**report["quality"], "mcnemar": 0.4}
    files = {"dense": "dense.onnx", "dense int8": "dense_int8.onnx", "compressed": "model.onnx"}
    files |= {"compressed fused": "model_ort.onnx", "compressed int8": "model_int8.onnx"}
    scored = {"dense int8", "compressed", "compressed int8"}
    step = {"call": "prune(smp(scorer='/home/somebody/secret/scorer.pt'))", "metrics": {}}
    return {
        **report,
        "recipe": {**report["recipe"], "name": "<script>alert('name')</script>"},
        "inputs": {"model_revision": None, "weights_sha256": "feed", "calibration_rows": 512},
        "layers": [
            {"layer": 0, "heads": {"kept": 11, "of": 12}, "ffn_neurons": {"kept": 672, "of": 1536}, "dropped": False},
            {"layer": 1, "heads": {"kept": 0, "of": 12}, "ffn_neurons": {"kept": 0, "of": 1536}, "dropped": True},
        ],
        "quality": {**quality, "model": "compressed int8"},
        "variants": [
            {"model": name, "file": file, "bytes": 50_000_000, "quality": quality if name in scored else None}
            for name, file in files.items()
        ],
        "latency": rows,
        "serve": {
            "model": "compressed int8",
            "file": "model_int8.onnx",
            "provider": "cpu",
            "session_config": {"optimization.disable_specified_optimizers": "SkipLayerNormFusion"},
            "why": ["model_int8.onnx had the lowest median latency"],
        },
        "lints": ["steps.0.prune: <script>alert('lint')</script> & more"],
        "steps": [
            {"slug": "01-prune", "seconds": 75.0, **step},
            {"slug": "02-verify", "seconds": 25.0, "call": "verify()", "metrics": {}},
        ],
    }
