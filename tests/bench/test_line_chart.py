"""Line charts as SVG."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.line_chart import Axis, Chart, Line, apart, as_svg, on_log_scale, on_share_scale

SVG = "{http://www.w3.org/2000/svg}"


def chart(*lines: Line) -> Chart:
    return Chart("cost & more", Axis("streams", [(0.0, "1"), (1.0, "500")]), Axis("µs", [(0.5, "100")]), list(lines))


def test_a_chart_is_an_svg_with_a_line_and_a_name_for_each_contestant() -> None:
    image = as_svg([chart(Line("floor", 0, [(0, 0.2), (1, 0.1)]), Line("a < b", 1, [(0, 0.5), (1, 0.9)]))], "for <all>")

    root = ElementTree.fromstring(image)

    assert root.findtext(f"{SVG}title") == "for <all>"
    assert len([path for path in root.iter(f"{SVG}path") if path.get("class", "").startswith("line")]) == 2
    assert {"floor", "a < b", "cost & more", "µs", "streams", "500"} <= {text.text for text in root.iter(f"{SVG}text")}


def test_a_contestant_without_points_is_left_out() -> None:
    assert "httpx" not in as_svg([chart(Line("httpx", 0, []))], "empty")


def test_the_colours_follow_the_readers_choice_of_light_or_dark() -> None:
    image = as_svg([chart()], "empty")

    assert "prefers-color-scheme: dark" in image
    assert 'class="back"' in image  # a page of another colour does not make the text unreadable


def test_scales_map_to_places_between_0_and_1() -> None:
    assert on_log_scale(10, 1, 100) == pytest.approx(0.5)
    assert on_log_scale(0.0, 1, 100) == 0
    assert on_share_scale(0) == 0
    assert on_share_scale(0.99) - on_share_scale(0.9) == pytest.approx(on_share_scale(0.999) - on_share_scale(0.99))
    assert on_share_scale(1.0) == 1


@given(st.lists(st.floats(0, 300), max_size=15))
def test_names_never_overlap(places: list[float]) -> None:
    moved = apart(places, 15, 0, 300)

    ordered = sorted(moved)
    assert all(later - earlier >= 15 - 1e-6 for earlier, later in pairwise(ordered))
    assert all(-1e-6 <= place <= 300 for place in moved)
