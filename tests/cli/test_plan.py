"""``leyden plan``: what would be done, and nothing done."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.usefixtures("data")


@pytest.fixture(autouse=True)
def no_pass(monkeypatch):
    monkeypatch.setattr("leyden.engine.sweep.Engine.sweep", pytest.fail)


def test_prints_method_passes_cost_and_the_other_methods(leyden):
    result = leyden("plan", "lstsq", "t.csv", "--target", "z", "--columns", "a,b", "--memory", "1GB")
    assert result.exit_code == 0
    for word in ("method", "pass 1", "total", "of 1 GB", "not"):
        assert word in result.stdout


def test_takes_the_options_of_the_verb(leyden):
    result = leyden("plan", "lstsq", "a.npy", "--target", "y.npy", "--method", "sketch", "--ridge", "1", "--json")
    document = json.loads(result.stdout)
    assert document["method"] == "sketch"
    assert "ridge 1" in document["data"]
