"""Scree plots: what they show is what is certified, and a plot is written whole or not at all."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

import leyden as ly
from leyden.report.scree import STEEP, figure, scree


@pytest.fixture
def x():
    rng = np.random.default_rng(0)
    return rng.standard_normal((200, 12)) * 0.7 ** np.arange(12) + 1


def points(axes):
    """Heights of the marks, and the ends of their bars."""
    (marks, _, (bars,)) = axes.containers[-1] if axes.containers[-1].has_yerr else axes.containers[0]
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    return (marks.get_ydata() if marks else None), ends


def test_bars_are_the_certified_enclosures_of_the_singular_values(x):
    found = ly.svd(x, 4, passes=1, method="sketch")
    heights, ends = points(figure(found).axes[0])
    np.testing.assert_array_equal(heights, found.s)
    np.testing.assert_allclose(ends.T, [found.lower, found.upper], rtol=1e-12)


def test_bars_are_the_certified_shares_of_the_variance(x):
    found = ly.pca(x, 4, passes=1, method="sketch")
    axes = figure(found).axes[0]
    _, ends = points(axes)
    shares = 100 * np.array([found.lower, found.upper]) ** 2 / found.frobenius_norm**2
    np.testing.assert_allclose(ends.T, shares, rtol=1e-12)
    assert [bar.get_height() for bar in axes.patches] == list(100 * found.explained_variance_ratio)
    (cumulative,) = (line for line in axes.lines if line.get_label() == "of all up to it")
    np.testing.assert_allclose(cumulative.get_ydata(), 100 * np.cumsum(found.explained_variance_ratio))


@pytest.mark.parametrize(("least", "scale"), [(1.1 / STEEP, "linear"), (0.9 / STEEP, "log"), (0.0, "linear")])
def test_singular_values_far_apart_have_a_logarithmic_axis(least, scale):
    axes = figure(ly.svd(np.diag([1.0, 0.7, least]), 3)).axes[0]
    assert axes.get_yscale() == scale
    low, high = axes.get_ylim()
    assert low <= least < 1 < high


@pytest.mark.parametrize("verb", [ly.svd, ly.pca])
@pytest.mark.parametrize("k", [1, 12])
def test_says_what_is_shown_and_in_which_units(x, verb, k):
    made = figure(verb(x, k))
    axes = made.axes[0]
    assert axes.get_title(loc="left")
    assert "200 × 12" in axes.texts[0].get_text()
    assert axes.get_xlabel() == "component"
    assert ("units of the data" if verb is ly.svd else "percent") in axes.get_ylabel()
    assert "certified enclosure" in made.legends[0].get_texts()[-1].get_text()


@pytest.mark.parametrize("verb", [ly.svd, ly.pca])
@pytest.mark.parametrize("a", [np.zeros((5, 3)), np.full((5, 3), 1e300), np.eye(2, 40), 1e-200 * np.eye(30)])
def test_any_spectrum_can_be_drawn(tmp_path, verb, a):
    scale = 1e-160 if a.max() > 1 else 1.0
    assert scree(verb(a * scale, 2), tmp_path / "s.svg").exists()


@pytest.mark.parametrize("name", ["s.svg", "s.png", "S.PNG", "$x_1$ 数.svg"])
def test_the_ending_is_the_format(tmp_path, x, name):
    np.save(tmp_path / "$x_1$ 数.npy", x)
    path = scree(ly.svd(tmp_path / "$x_1$ 数.npy", 3), tmp_path / name)
    if path.suffix.lower() == ".svg":
        assert ET.parse(path).getroot().tag.endswith("svg")
    else:
        with Image.open(path) as image:
            assert image.format == "PNG"
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted({name, "$x_1$ 数.npy"})


def test_the_same_answer_gives_the_same_file(tmp_path, x):
    found = ly.svd(x, 3)
    assert scree(found, tmp_path / "a.svg").read_bytes() == scree(found, tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    ("path", "said"),
    [("s.pdf", r"\.svg or \.png"), ("gone/s.svg", "no such folder"), ("taken.svg", "cannot be written here")],
)
def test_what_cannot_be_written_is_said(tmp_path, x, path, said):
    (tmp_path / "taken.svg").mkdir()
    with pytest.raises(ly.LeydenError, match=said):
        scree(ly.svd(x, 2), tmp_path / path)
    assert [file.name for file in tmp_path.iterdir()] == ["taken.svg"]


def test_a_full_disk_leaves_nothing_and_what_was_there_stays(tmp_path, x, monkeypatch):
    path = tmp_path / "s.svg"
    path.write_text("before")

    def full(self, file, **_):
        file.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(ly.SolutionError, match="No space left on device"):
        scree(ly.svd(x, 2), path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_without_matplotlib_it_says_what_to_install(tmp_path, x, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ly.OptionError, match=r"needs matplotlib.*leyden\[plot\]"):
        scree(ly.svd(x, 2), tmp_path / "s.svg")
