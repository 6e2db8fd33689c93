from __future__ import annotations

import pytest
from pydantic import ValidationError

from compressor.recipe.options import CalibrationOptions, Gates, Verification


def test_one_number_is_a_list_of_one():
    one = Verification(batch=4, sequence=[32, 64], threads=0)  # type: ignore[arg-type]
    assert (one.batch, one.sequence, one.threads) == ((4,), (32, 64), (0,))


@pytest.mark.parametrize("wrong", [{"batch": []}, {"batch": 0}, {"rounds": 2}, {"confidence": 1}, {"provider": "tpu"}])
def test_verification_refuses_what_cannot_be_measured(wrong: dict[str, object]):
    with pytest.raises(ValidationError):
        Verification.model_validate(wrong)


def test_calibration_takes_samples_or_tokens():
    with pytest.raises(ValidationError, match="expected samples or tokens; got both"):
        CalibrationOptions(samples=512, tokens=1000)
    assert CalibrationOptions(samples=8, tokens=None).samples == 8


@pytest.mark.parametrize("made", [CalibrationOptions(), CalibrationOptions(tokens=1000), CalibrationOptions(samples=8)])
def test_calibration_options_validate_back(made: CalibrationOptions):
    assert CalibrationOptions.model_validate(made.options()) == made


def test_gates_are_what_was_asked():
    assert Gates(latency=0.5, macs=0.6).given() == {"latency": 0.5, "macs": 0.6}
    assert Gates().given() == {}
    assert Gates(metric_drop=0).given() == {"metric_drop": 0}
