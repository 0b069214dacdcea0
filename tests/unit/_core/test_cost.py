"""Predicted cost, the choice by it, and stepping down under load."""

import pytest

from isp_perf._core.cost import FASTEST, Choice, CostModel, LoadSteps, level_for

RATES = {
    ("br", 1): 250.0,
    ("br", 4): 70.0,
    ("br", 5): 45.0,
    ("zstd", 1): 400.0,
    ("zstd", 3): 280.0,
    ("gzip", 6): 28.0,
    ("gzip", 1): 100.0,
}
ALL = ("br", "zstd", "gzip")


@pytest.mark.parametrize(
    ("size", "choice"),
    [
        (2_000, Choice("br", 5, inline=True)),
        (60_000, Choice("br", 4, inline=True)),
        (100_000, Choice("zstd", 3, inline=True)),
        (270_000, Choice("zstd", 3, inline=True)),
        (1_000_000, Choice("br", 4, inline=False)),
    ],
)
def test_the_first_that_fits_the_budget_runs_inline(size, choice):
    """The first coding within the budget is taken, in order; if none fits, the first one goes to a thread."""
    assert CostModel(RATES).choose(ALL, size, budget_us=1000, step=0) == choice


def test_load_steps_leave_the_dearest_first():
    """Step by step: no brotli 5, zstd before brotli, and at last whatever is fastest."""
    model = CostModel(RATES)
    chosen = [model.choose(ALL, 2_000, budget_us=1000, step=step)[:2] for step in range(4)]
    assert chosen == [("br", 5), ("br", 4), ("zstd", 3), ("zstd", 1)]
    assert model.choose(("br", "gzip"), 2_000, budget_us=1000, step=FASTEST)[:2] == ("br", 1)
    assert level_for("gzip", 10, FASTEST) == 1


def test_timings_move_the_model_slowly_and_within_limits():
    """One hiccup hardly moves a prediction, and no number of them moves it by more than four times."""
    model = CostModel(RATES)
    choice = Choice("br", 4, inline=True)
    fair = model.predict("br", 4, 70_000)
    model.observe(choice, 70_000, 1.0)
    assert fair < model.predict("br", 4, 70_000) < 1.2 * fair
    for _ in range(200):
        model.observe(choice, 70_000, 1.0)
    assert model.predict("br", 4, 70_000) == pytest.approx(4 * fair)
    for _ in range(200):
        model.observe(choice, 70_000, 1e-9)
    assert model.predict("br", 4, 70_000) == pytest.approx(fair / 4)


def test_small_or_impossible_timings_teach_nothing():
    """Bodies that measure only the set-up, timings of zero and unknown recipes are ignored."""
    model = CostModel(RATES)
    before = model.predict("br", 4, 1000)
    model.observe(Choice("br", 4, inline=True), 1000, 1.0)
    model.observe(Choice("br", 4, inline=True), 100_000, 0.0)
    model.observe(Choice("lz", 4, inline=True), 100_000, 1.0)
    assert model.predict("br", 4, 1000) == before


def test_steps_have_hysteresis():
    """A step is taken above its limit and given back only below half of it."""
    steps = LoadSteps()
    assert [steps.update(load) for load in (1.0, 1.1, 1.1, 0.6, 0.4)] == [0, 1, 1, 1, 0]
    assert [steps.update(9.0) for _ in range(5)] == [1, 2, 3, 3, 3]
    assert [steps.update(0.0) for _ in range(4)] == [2, 1, 0, 0]
    assert steps.moves == 8


def test_fixed_steps_never_move():
    """Fixed levels ignore the load."""
    steps = LoadSteps(FASTEST)
    assert [steps.update(load) for load in (0.0, 9.0)] == [FASTEST, FASTEST]
