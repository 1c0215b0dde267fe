"""Which thresholds an engine has after it was built again."""

from dataclasses import replace
from pathlib import Path

import pytest

from export.kept_thresholds import keep_thresholds
from runtime.engines.sidecar import Sidecar, Threshold
from tests.support.tiny_engine import tiny_sidecar, write_tiny_engine

OWN, NIGHT, F1 = Threshold(1.0, "the model's"), Threshold(1.25, "by hand"), Threshold(0.75, "best F1")


@pytest.fixture
def model(tmp_path: Path) -> Sidecar:
    sidecar = tiny_sidecar(write_tiny_engine(tmp_path), (32, 48), ("a", "b"))
    return replace(sidecar, network_sha256="a" * 64, checkpoint_sha256="1" * 64, thresholds={"good_quantile": OWN})


def test_one_chosen_with_the_engine_outlives_another_that_was_saved_in_the_checkpoint(
    model: Sidecar, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = replace(model, thresholds={**model.thresholds, "night": NIGHT}, default_threshold="night")
    built = replace(model, checkpoint_sha256="2" * 64, thresholds={**model.thresholds, "best_f1": F1})
    kept = keep_thresholds(built, engine, model)
    assert kept.thresholds == {"good_quantile": OWN, "best_f1": F1, "night": NIGHT}
    assert (kept.default_threshold, kept.threshold) == ("night", NIGHT)
    said = capsys.readouterr().out
    assert "kept, as set on the engine: night 1.25 (by hand)" in said
    assert "night still decides verdicts, not the model's own good_quantile" in said and "dropped" not in said


def test_another_network_has_its_own_thresholds_and_that_is_said(
    model: Sidecar, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = replace(model, thresholds={**model.thresholds, "night": NIGHT}, default_threshold="night")
    built = replace(model, network_sha256="b" * 64)
    assert keep_thresholds(built, engine, model) == built
    assert "dropped, as set on an engine of another network: night; set them again" in capsys.readouterr().out


def test_an_edited_one_of_the_models_name_is_said_too(model: Sidecar, capsys: pytest.CaptureFixture[str]) -> None:
    engine = replace(model, thresholds={"good_quantile": NIGHT})
    built = replace(model, network_sha256="b" * 64)
    assert keep_thresholds(built, engine, model) == built
    assert "dropped, as set on an engine of another network: good_quantile; set them again" in capsys.readouterr().out


def test_what_the_model_changed_since_reaches_the_engine(model: Sidecar, capsys: pytest.CaptureFixture[str]) -> None:
    built = replace(model, thresholds={"good_quantile": F1, "best_f1": F1}, default_threshold="best_f1")
    assert keep_thresholds(built, model, model) == built
    assert capsys.readouterr().out == ""


def test_of_a_name_that_both_changed_the_engines_counts(model: Sidecar) -> None:
    engine = replace(model, thresholds={"good_quantile": NIGHT})
    built = replace(model, thresholds={"good_quantile": F1})
    assert keep_thresholds(built, engine, model).threshold == NIGHT
    assert keep_thresholds(built, engine, None).threshold == NIGHT


def test_sidecars_from_before_networks_had_a_hash(model: Sidecar) -> None:
    engine = replace(model, thresholds={**model.thresholds, "night": NIGHT}, network_sha256="")
    assert "night" in keep_thresholds(model, engine, model).thresholds
    assert "night" not in keep_thresholds(replace(model, checkpoint_sha256="2" * 64), engine, model).thresholds


def test_the_first_build(model: Sidecar) -> None:
    assert keep_thresholds(model, None, None) == model
