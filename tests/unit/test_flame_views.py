"""The flame graph's outputs: SVG, JSON, the page's file, and the command that writes them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import stat
import unicodedata
import xml.etree.ElementTree as ElementTree
import zlib
from pathlib import Path
from typing import Any

import pytest

from sberf.__main__ import main
from sberf.views.flame_data import KINDS, asset, palette
from sberf.views.output_file import write_file
from tests.unit.synthetic import RecordingBuilder

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    "</script><script>alert(1)</script>",
    "]]><img src=x onerror=alert(2)>",
    "'\"`&amp;&lt;${alert(3)}",
    "\x1b[31mred\x07\x00\x85",
    "\u202eevil\u2066\u200b",
    "{{script}}{{payload}}",
    "a\nb\tc\\",
]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    builder = RecordingBuilder()
    builder.module_kinds["[jit]"] = "jit"
    builder.add("web", 10, "main;serve;[kernel]!read", samples=60)
    builder.add("web", 10, "main;serve;[jit]!hot_loop", samples=30)
    builder.add("web", 10, "main", samples=10)
    builder.meta["losses"]["dropped_records"] = 7
    return builder.write(tmp_path / "r.data")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    builder = RecordingBuilder()
    for name in HOSTILE:
        builder.add(name, 10, [name, f"x{name}"], samples=5)
    builder.meta["host"]["hostname"] = HOSTILE[0]
    builder.meta["warnings"] = HOSTILE
    builder.meta["command"] = {"argv": HOSTILE, "exit_code": 0}
    return builder.write(tmp_path / "hostile.data")


def flame(*arguments: str | Path) -> int:
    return main(["flame", *map(str, arguments)])


def drawn(path: Path) -> ElementTree.Element:
    return ElementTree.fromstring(path.read_text(encoding="utf-8"))


def boxes(svg: ElementTree.Element) -> list[tuple[str, dict[str, float], str]]:
    """For each frame its title, its rectangle and its label."""
    found = []
    for group in svg.iter(f"{SVG}g"):
        rectangle = group.find(f"{SVG}rect")
        assert rectangle is not None
        place = {key: float(rectangle.get(key, "nan")) for key in ("x", "y", "width", "height")}
        found.append((group.findtext(f"{SVG}title") or "", place, group.findtext(f"{SVG}text") or ""))
    return found


def test_svg_shows_each_frame_where_it_belongs(recording: Path, tmp_path: Path) -> None:
    assert flame("-i", recording, "-o", tmp_path / "f.svg") == 0
    frames = {title.split("\n")[0]: place for title, place, _ in boxes(drawn(tmp_path / "f.svg"))}
    assert set(frames) == {"all", "web", "main", "serve", "read", "hot_loop"}
    whole = frames["all"]["width"] + 1
    assert frames["serve"]["width"] + 1 == pytest.approx(0.9 * whole)
    assert frames["read"]["width"] + 1 == pytest.approx(0.6 * whole)
    assert frames["hot_loop"]["x"] == pytest.approx(frames["read"]["x"] + 0.6 * whole)
    assert frames["all"]["y"] > frames["main"]["y"] > frames["read"]["y"], "flames grow upwards"


def test_svg_inverted_hangs(recording: Path, tmp_path: Path) -> None:
    assert flame("-i", recording, "-o", tmp_path / "f.svg", "--inverted") == 0
    svg = drawn(tmp_path / "f.svg")
    frames = {title.split("\n")[0]: place for title, place, _ in boxes(svg)}
    assert frames["all"]["y"] < frames["read"]["y"] < frames["serve"]["y"]


def test_svg_titles_labels_and_words_around(recording: Path, tmp_path: Path) -> None:
    assert flame("-i", recording, "-o", tmp_path / "f.svg", "--title", "My title") == 0
    svg = drawn(tmp_path / "f.svg")
    details = next(title for title, _, _ in boxes(svg) if title.startswith("read"))
    assert "60.00%, 600.00 ms in 60 samples" in details
    texts = [text.text for text in svg.iter(f"{SVG}text")]
    assert texts[0] == "My title"
    assert any(text and text.startswith("lost: 7 samples or stacks were dropped: ") for text in texts)
    assert {"kernel", "user", "JIT"} <= set(texts)


def test_svg_labels_fit_their_frames(tmp_path: Path) -> None:
    builder = RecordingBuilder()
    for index in range(60):
        builder.add("web", 10, f"main;a_function_with_a_long_name_{index}", samples=1 + index)
    assert flame("-i", builder.write(tmp_path / "r"), "-o", tmp_path / "f.svg") == 0
    labelled = [(place, label) for _, place, label in boxes(drawn(tmp_path / "f.svg")) if label]
    assert any(label.endswith("…") for _, label in labelled)
    assert all(len(label) * 6.6 + 3 <= place["width"] + 1 for place, label in labelled)


def test_svg_leaves_out_what_is_too_narrow(tmp_path: Path) -> None:
    builder = RecordingBuilder()
    builder.add("web", 10, "main;wide", samples=2, weight=10**9)
    for index in range(50):
        builder.add("web", 10, f"main;narrow_{index};deep", weight=10**4)
    assert flame("-i", builder.write(tmp_path / "r"), "-o", tmp_path / "f.svg") == 0
    names = [title.split("\n")[0] for title, _, _ in boxes(drawn(tmp_path / "f.svg"))]
    assert names == ["all", "web", "main", "wide"]


def test_svg_of_a_diff(recording: Path, tmp_path: Path) -> None:
    builder = RecordingBuilder()
    builder.module_kinds["[jit]"] = "jit"
    builder.add("web", 10, "main;serve;[jit]!hot_loop", samples=100)
    after = builder.write(tmp_path / "after.data")
    assert flame("--diff", recording, after, "-o", tmp_path / "f.svg") == 0
    svg = drawn(tmp_path / "f.svg")
    details = {title.split("\n")[0]: title for title, _, _ in boxes(svg)}
    assert "before: 60.00%, 600.00 ms in 60 samples" in details["read"]
    assert "after: 0.00%, 0 ns in 0 samples" in details["read"]
    fills = {
        (group.findtext(f"{SVG}title") or "").split("\n")[0]: group[1].get("fill", "")
        for group in svg.iter(f"{SVG}g")
    }
    red, _, blue = (int(fills["read"][i : i + 2], 16) for i in (1, 3, 5))
    assert blue > red, "what is gone is blue"
    red, _, blue = (int(fills["hot_loop"][i : i + 2], 16) for i in (1, 3, 5))
    assert red > blue, "what grew is red"
    assert fills["all"] in {"#e0e0e0", "#e1e1e1"}, "what is the same is grey"


@pytest.mark.parametrize("options", [[], ["--inverted"], ["--by", "pid"]])
def test_svg_with_hostile_names(hostile: Path, tmp_path: Path, options: list[str]) -> None:
    assert flame("-i", hostile, "-o", tmp_path / "f.svg", *options) == 0
    text = (tmp_path / "f.svg").read_text(encoding="utf-8")
    svg = ElementTree.fromstring(text)
    tags = {element.tag.removeprefix(SVG) for element in svg.iter()}
    assert tags == {"svg", "style", "rect", "g", "title", "text"}
    assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"]
    assert any(title.startswith(HOSTILE[0]) for title, _, _ in boxes(svg))


def decoded(page: str) -> tuple[dict[str, Any], bytes]:
    """The payload's JSON and columns."""
    payload = re.search(r'<script type="text/plain" id="payload">([A-Za-z0-9+/=]*)</script>', page)
    assert payload
    block = zlib.decompress(base64.b64decode(payload[1]))
    length = int.from_bytes(block[:4], "little")
    return json.loads(block[4 : 4 + length]), block[4 + length :]


def test_page_payload(recording: Path, tmp_path: Path) -> None:
    assert flame("-i", recording, "-o", tmp_path / "f.html") == 0
    head, columns = decoded((tmp_path / "f.html").read_text(encoding="utf-8"))
    assert head["nodes"] == 6
    assert [column["name"] for column in head["columns"]] == ["frame", "depth", "all_weight"]
    assert len(columns) == sum(column["bytes"] for column in head["columns"]) * head["nodes"]
    # In preorder, siblings by name: all, web, main, serve, hot_loop, read.
    assert list(columns[6:12]) == [0, 1, 2, 3, 4, 4]
    assert list(columns[12:18]) == [0, 0, 10, 0, 30, 60]
    assert head["columns"][2]["scale"] == 10_000_000


def test_page_names_are_nowhere_but_in_the_payload(hostile: Path, tmp_path: Path) -> None:
    assert flame("-i", hostile, "-o", tmp_path / "f.html") == 0
    page = (tmp_path / "f.html").read_text(encoding="utf-8")
    escaped = "&lt;/script&gt;&lt;script&gt;alert(1)"
    assert escaped in page, "in the title"
    assert "alert(1)" not in page.replace(escaped, "")
    assert page.count("<script") == page.count("</script>") == 2
    head, _ = decoded(page)
    names = json.dumps(head, ensure_ascii=False)
    assert not [c for c in names if unicodedata.category(c) in ("Cc", "Cf")]


def test_page_asks_for_nothing_and_runs_only_its_script(recording: Path, tmp_path: Path) -> None:
    assert flame("-i", recording, "-o", tmp_path / "f.html") == 0
    page = (tmp_path / "f.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href|action)=(?!\"data:,\")", page.split('id="payload"')[0])
    script = page.rsplit("<script>", 1)[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("theme", "text"), [("light", "#16181d"), ("dark", "#f2f3f5")])
@pytest.mark.parametrize("kind", KINDS)
def test_names_are_readable_on_all_colours(theme: str, text: str, kind: str) -> None:
    from sberf.views.flame_svg import _hex

    assert text in asset("flame_draw.js")
    first, last, saturation, lightness = palette()[kind][theme]
    for shade in range(32):
        fill = _hex(first + (last - first) * (shade >> 2) / 7, saturation, lightness + 1.5 * (shade & 3))
        assert contrast(fill, text) >= 4.5, (kind, theme, shade)


def printed_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    assert flame("--json", *arguments) == 0
    text = capsys.readouterr().out
    assert text.isascii()
    result: dict[str, Any] = json.loads(text)
    return result


def test_json(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = printed_json(capsys, "-i", recording)
    names = [result["frames"][frame]["name"] for frame in result["nodes"]["frame"]]
    assert names == ["all", "web", "main", "serve", "hot_loop", "read"]
    assert result["nodes"]["total_samples"] == [100, 100, 100, 90, 30, 60]
    assert result["nodes"]["self_samples"] == [0, 0, 10, 0, 30, 60]
    assert result["nodes"]["parent"] == [0, 0, 1, 2, 3, 3]


def test_json_of_a_diff(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = printed_json(capsys, "--diff", recording, recording)
    assert result["nodes"]["before"] == result["nodes"]["after"]
    assert result["nodes"]["change"] == [0] * 6


def test_json_with_hostile_names(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {frame["name"] for frame in printed_json(capsys, "-i", hostile)["frames"]}
    assert set(HOSTILE) <= names, "exact, escaped by JSON alone"


@pytest.mark.parametrize("diff", [False, True])
def test_json_fields_are_documented(recording: Path, capsys: pytest.CaptureFixture[str], diff: bool) -> None:
    result = printed_json(capsys, *(("--diff", recording, recording) if diff else ("-i", recording)))
    page = (ROOT / "docs" / "flame.md").read_text(encoding="utf-8")
    for field in [*result, *result["frames"][0], *(f"nodes.{name}" for name in result["nodes"])]:
        assert f"`{field}`" in page


def test_says_where_it_wrote(recording: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert flame("-i", recording, "-o", tmp_path / "f.html") == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"wrote {tmp_path / 'f.html'} (")
    assert "100 samples of cpu-clock in 3 stacks" in err


def test_stdout(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert flame("-i", recording, "--svg", "-o", "-") == 0
    out, err = capsys.readouterr()
    assert out.startswith("<svg ")
    assert err == ""


def test_default_names(recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert flame("-i", recording) == 0
    assert flame("-i", recording, "--svg") == 0
    assert Path("flame.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert Path("flame.svg").read_text(encoding="utf-8").startswith("<svg ")


def test_min_percent(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = printed_json(capsys, "-i", recording, "--min-percent", "50")
    names = [result["frames"][frame]["name"] for frame in result["nodes"]["frame"]]
    assert names == ["all", "web", "main", "serve", "[smaller frames]", "read"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--svg", "--json"], "exclude each other"),
        (["--diff", "a", "b", "-i", "c"], "names its two recordings itself"),
        (["--min-percent", "101"], "no number from 0 to 100"),
        (["--min-percent", "nan"], "no number from 0 to 100"),
        (["-i", "nowhere"], "no recording at 'nowhere'"),
    ],
)
def test_wrong_use(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert flame(*arguments) != 0
    assert message in capsys.readouterr().err


def test_nothing_to_draw_writes_nothing(
    recording: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert flame("-i", recording, "--comm", "nobody", "-o", tmp_path / "f.html") == 1
    assert "no sample has process or thread name 'nobody'" in capsys.readouterr().err
    assert not (tmp_path / "f.html").exists()


def test_output_directory_that_does_not_exist(
    recording: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert flame("-i", recording, "-o", tmp_path / "none" / "f.html") == 1
    assert f"No such file or directory: '{tmp_path / 'none' / 'f.html'}'" in capsys.readouterr().err


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "f.html"
    target.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*f\.html'"):
        write_file(target, "new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["f.html"]


def test_a_full_device_is_an_error(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert flame("-i", recording, "-o", "/dev/full") == 1
    assert "No space left on device: '/dev/full'" in capsys.readouterr().err


def test_replacing_keeps_links_and_permissions(tmp_path: Path) -> None:
    target, link = tmp_path / "f.html", tmp_path / "link.html"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_file(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_new_file_follows_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        write_file(tmp_path / "f.html", "new")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "f.html").stat().st_mode) == 0o640
