"""The report: its data, its picture, its page, and the page in a browser where there is one."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import itertools
import json
import random
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from modgrad.autoresearch import report, report_data, report_frame, report_labels
from modgrad.autoresearch.errors import RepositoryError
from modgrad.autoresearch.report import Details
from modgrad.autoresearch.state import State

from tests.loop_records import Record, records

PNG = b"\x89PNG\r\n\x1a\n"
HOSTILE = (
    "</script><script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"
    "{{blocks}} $\\frac{ <!-- \0 \x1b[31m \ud800 \u202e ${1} 模型"
)


def plausible(count: int, *, seed: int = 0, drift: float = 0.0) -> list[Record]:
    """Records with a holdout that follows val but for `drift` of its gain, and with
    discards far off."""
    made, draw = records(count, seed), random.Random(seed)
    for record in made:
        if record["kind"] == "decided" and record["status"] == "keep":
            gain = 1.7 - record["val_bpb"]
            record["holdout_bpb"] = record["val_bpb"] + 0.05 + drift * gain
        elif record["kind"] == "decided" and record["status"] == "discard" and draw.random() < 0.04:
            record["val_bpb"] += draw.expovariate(3)
    return made


def hostile(count: int) -> State:
    """The same with text everywhere that must not act."""
    made = plausible(count)
    made[0]["settings"].update(tag="test", machine=HOSTILE)
    for record in made:
        if record["kind"] == "proposed":
            record["hypothesis"] = f"{HOSTILE} {record['n']}"
            record["notes"] = record["family"] = HOSTILE
        if "reason" in record:
            record["reason"] = HOSTILE
        if record["kind"] == "planned":
            record["researcher"] = HOSTILE
    made.append({"kind": "stopped", "time": made[-1]["time"] + 1, "reason": HOSTILE})
    return State.replay(made)


def details(number: int) -> Details:
    """A hostile diff and log."""
    return Details(f"@@ -1 +1 @@\n-old\n+new {number}\n {HOSTILE}\n", f"step 1\n{HOSTILE}\n")


def remeasured(made: list[Record], commit: str, scores: list[float | None]) -> None:
    """Appends runs of a commit under fresh seeds; None is a crash."""
    now = made[-1]["time"]
    for seed, score in enumerate(scores, start=1000):
        key = {"n": 0, "role": "remeasure", "commit": commit, "seed": seed, "time": now}
        crash = "time" if score is None else None
        made += [
            {"kind": "train_started", **key, "pid": 1},
            {"kind": "train_done", **key, "crash": crash, "reason": "", "curve": []}
            | {"checkpoint_sha256": None, "wall_seconds": 1.0, "build_seconds": 0.0}
            | {"peak_rss_mb": 1.0},
        ]
        if score is not None:
            scored = {"crash": None, "reason": "", "val_bpb": score, "seconds": 1.0}
            made.append({"kind": "eval_done", **key, **scored})


class Markup(HTMLParser):
    """What of a page a browser would act on."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.scripts: list[str | None] = []  # their types
        self.blocks: dict[str, Any] = {}
        self._block = ""
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append(tag)
        self.attributes += named
        self._block = (named.get("id") or "") if tag == "script" else ""
        if tag == "script":
            self.scripts.append(named.get("type"))

    def handle_data(self, data: str) -> None:
        if self._block:
            self.blocks[self._block] = json.loads(gzip.decompress(base64.b64decode(data)))
        self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._block = ""


def page_of(state: State, folder: Path) -> Markup:
    """The page of a state, read."""
    paths = report.write(folder, state, details, now=state.last_time)
    return Markup(paths.page.read_text(encoding="utf-8"))


def test_both_files_are_written_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    paths = report.write(folder, State.replay(plausible(40)), details, now=0.0)
    assert paths == report.ReportPaths(folder / "report.html", folder / "progress.png")
    assert sorted(path.name for path in folder.iterdir()) == ["progress.png", "report.html"]
    assert paths.picture is not None and paths.picture.read_bytes().startswith(PNG)
    assert paths.page.stat().st_mode & 0o777 == 0o644


def test_without_matplotlib_the_page_is_written_and_the_way_to_a_picture_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    paths = report.write(tmp_path, State.replay(plausible(5)), details, now=0.0)
    assert paths.picture is None and paths.note is not None
    assert paths.note.startswith("progress.png: not drawn (")
    assert paths.note.endswith('hint: pip install "modgrad[report]"') and "\n" not in paths.note
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_failure_leaves_the_last_report(tmp_path: Path) -> None:
    report.write(tmp_path, State.replay(plausible(5)), details, now=0.0)
    before = (tmp_path / "report.html").read_bytes()

    def interrupted(number: int) -> Details:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        report.write(tmp_path, State.replay(plausible(6)), interrupted, now=0.0)
    assert (tmp_path / "report.html").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("made", [[], records(0)[:1], records(0)[:4], records(0), records(1)[:-3]])
def test_a_report_can_be_made_at_any_time(made: list[Record], tmp_path: Path) -> None:
    paths = report.write(tmp_path, State.replay(made), details, now=0.0)
    assert paths.picture is not None and paths.picture.read_bytes().startswith(PNG)


def test_text_of_others_is_text_in_the_picture_and_the_page(tmp_path: Path) -> None:
    page = page_of(hostile(40), tmp_path)
    assert "img" not in page.tags and "onerror" not in page.attributes
    data = [kind for kind in page.scripts if kind == "application/gzip+base64"]
    assert page.scripts == [*data, None] and len(data) == len(page.blocks) > 1
    assert "<img src=x" in page.text  # shown, that is
    packed = json.dumps(page.blocks, ensure_ascii=False)
    packed.encode()  # no halves of surrogate pairs
    assert not set(packed) & {"\0", "\x1b", "\u202e"}
    assert "⟨U+202E⟩" in page.blocks["details-0"]["0"]["diff"]


def test_the_page_runs_one_script_and_loads_nothing(tmp_path: Path) -> None:
    report.write(tmp_path, State.replay(plausible(5)), details, now=0.0)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    script = page.rsplit("<script>", 1)[1].rsplit("</script>", 1)[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert f'content="{policy}"' in page
    assert set(re.findall(r"https?://[^\s\"')]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<link|<iframe|@import|url\(|innerHTML|outerHTML|insertAdjacent", page)


def test_rows_hold_every_experiment_that_is_over(tmp_path: Path) -> None:
    state = State.replay(plausible(60)[:-1])  # the last is not logged
    columns = page_of(state, tmp_path).blocks["rows"]["columns"]
    assert columns["number"] == list(range(60))
    for number, (status, score, delta) in enumerate(
        zip(columns["status"], columns["val_bpb"], columns["delta"], strict=True)
    ):
        assert status == state.experiments[number].status
        if status == "crash":  # null, never 0
            assert score is None and delta is None
    assert len({len(column) for column in columns.values()}) == 1


def test_details_are_left_out_where_the_page_grows_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_data, "LARGEST_DETAILS", 10_000)
    asked: list[int] = []

    def bulky(number: int) -> Details:
        asked.append(number)
        return Details(random.Random(number).randbytes(100).hex(), "")

    state = State.replay(plausible(200))
    report.write(tmp_path, state, bulky, now=0.0)
    page = Markup((tmp_path / "report.html").read_text(encoding="utf-8"))
    where = page.blocks["rows"]["columns"]["block"]
    for number, block in enumerate(where):
        assert block is None or str(number) in page.blocks[f"details-{block}"]
    assert None in where and all(where[number] is not None for number in state.kept)
    assert len(asked) < 200


def test_details_are_capped_and_may_fail(tmp_path: Path) -> None:
    def failing(number: int) -> Details:
        if number == 0:
            raise RepositoryError("git: no such commit")
        return Details("d" * 200_000, "l" * 50_000 + "end")

    report.write(tmp_path, State.replay(plausible(1)), failing, now=0.0)
    page = Markup((tmp_path / "report.html").read_text(encoding="utf-8"))
    found = page.blocks["details-0"]
    assert found["0"]["failed"] == "git: no such commit"
    assert found["1"]["diff"].startswith("ddd") and len(found["1"]["diff"]) < 101_000
    assert found["1"]["log"].endswith("end") and len(found["1"]["log"]) < 21_000


def test_a_drift_of_the_holdout_is_warned_of(tmp_path: Path) -> None:
    assert (
        "fitted to val.txt"
        not in page_of(State.replay(plausible(0)), tmp_path).text.split("Kept")[0]
    )
    drifted = page_of(State.replay(plausible(40, drift=0.3)), tmp_path).text
    assert "the holdout has gained 0.019107 bpb (10.3σ) less than val" in drifted


@pytest.mark.parametrize(
    ("tip", "baseline", "verdict"),
    [
        (None, None, "It has not been measured again on fresh seeds"),
        ([1.64, 1.641, 1.639], [1.70, 1.702, 1.699], "lower than the baseline.*significant gain"),
        ([1.64, 1.70, 1.74], [1.70, 1.702, 1.699], "this may be chance"),
        ([1.74, 1.741, None, 1.739], [1.70, 1.702, 1.699], "higher.*significantly worse"),
        ([1.64], [1.7], "Two fresh seeds of the tip and of the baseline are needed"),
    ],
)
def test_the_tip_is_shown_as_measured_again(
    tip: list[float | None] | None,
    baseline: list[float | None] | None,
    verdict: str,
    tmp_path: Path,
) -> None:
    made = plausible(40)
    state = State.replay(made)
    if tip is not None and baseline is not None and state.tip and state.baseline:
        remeasured(made, str(state.baseline.candidate), baseline)
        remeasured(made, str(state.tip.candidate), tip)
    shown = page_of(State.replay(made), tmp_path).text
    assert re.search(verdict, shown)


def test_what_is_far_off_does_not_squeeze_the_scale() -> None:
    made = plausible(300)
    usual = report_frame.frame(State.replay(made))
    for record in made[-40:]:
        if record["kind"] == "decided" and record["status"] == "discard":
            record["val_bpb"] = 8.0
    assert report_frame.frame(State.replay(made)) == usual
    assert usual.shift == pytest.approx(0.05)
    scores = [one.val_bpb for one in State.replay(made).experiments if one.status == "keep"]
    assert all(usual.low < score < usual.high for score in scores if score is not None)


def test_labels_never_overlap_nor_cover_the_staircase() -> None:
    np = pytest.importorskip("numpy")
    stairs = np.array([(10.0, 500.0), (20, 500), (20, 400), (60, 400), (60, 200), (900, 200)])
    canvas = report_labels.Surroundings((0, 0, 1000, 600), stairs, np.array([(100.0, 450.0)]))
    boxes = [canvas.place((x, y), 200, 30) for x, y in ((20, 400), (60, 200), (22, 390), (61, 210))]
    assert None not in boxes
    found = [box for box in boxes if box is not None]
    for index, box in enumerate(found):
        assert not any(report_labels.overlap(box, other) for other in found[:index])
        for (x0, y0), (x1, y1) in itertools.pairwise(stairs):
            segment = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
            assert not report_labels.overlap(box, segment)
    full = report_labels.Surroundings((0, 0, 100, 20), stairs, np.array([(0.0, 0.0)]))
    assert full.place((50, 10), 200, 30) is None


# ---- in a browser

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
in_a_browser = pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome")


def browse(page: Path, scratch: Path, fragment: str = "") -> tuple[str, str]:
    """(the document as it stands after a while, what the console said)."""
    assert BROWSER is not None
    done = subprocess.run(
        [
            *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu"),
            *(f"--user-data-dir={scratch / 'profile'}", "--enable-logging=stderr", "--v=0"),
            *("--virtual-time-budget=10000", "--window-size=1280,2000", "--dump-dom"),
            page.as_uri() + fragment,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, "\n".join(console)


def driven(page: Path, driver: str) -> Path:
    """The page with a script of the test's that acts as a user would, and allowed to."""
    text = page.read_text(encoding="utf-8")
    script = text.rsplit("<script>", 1)[1].rsplit("</script>", 1)[0]
    longer = script + driver

    def digest(of: str) -> str:
        return base64.b64encode(hashlib.sha256(of.encode()).digest()).decode()

    head, _, tail = text.rpartition(script)
    path = page.with_name("driven.html")
    path.write_text(head.replace(digest(script), digest(longer)) + longer + tail, encoding="utf-8")
    return path


@in_a_browser
def test_ten_thousand_experiments_in_a_browser(tmp_path: Path) -> None:
    state = hostile(10_000)
    paths = report.write(tmp_path, state, details, now=state.last_time)
    begun = time.monotonic()
    document, console = browse(paths.page, tmp_path, "#9950")
    assert time.monotonic() - begun < 20
    assert console == ""
    assert "<title>test · modgrad report</title>" in document and "<img" not in document
    assert document.count('<tr id="row-') == 100
    assert "1–100 of 10,001" in document
    (opened,) = re.findall(r'<tr class="opened">.*?</tr>', document, re.DOTALL)
    assert '<span class="added">+new 9950</span>' in opened
    assert html.escape("</script><script>document.title='ran'", quote=False) in opened
    # The picture: a dot, a triangle or a tick for each experiment, a circle for each keep.
    picture = document.split('<div id="picture">')[1].split('<div id="hint"')[0]
    circles = picture.count('class="kept')
    assert circles == len(state.kept)
    strokes = re.findall(r'<path d="([^"]*)" class="(?:dots )?(?:discard|crash)"', picture)
    assert sum(path.count("M") for path in strokes) + circles == 10_001


@in_a_browser
def test_the_table_is_searched_filtered_sorted_and_paged(tmp_path: Path) -> None:
    state = State.replay(plausible(400))
    paths = report.write(tmp_path, state, details, now=state.last_time)
    driver = """
;(async () => {
  const wait = () => new Promise((done) => setTimeout(done, 20));
  while (!document.querySelector("#experiments tbody tr")) await wait();
  const column = (n) => [...document.querySelectorAll("#experiments tbody tr")]
    .map((row) => row.cells[n].textContent);
  const change = (id, value, kind) => {
    byId(id).value = value;
    byId(id).dispatchEvent(new Event(kind));
  };
  const seen = { first: column(0).slice(0, 2) };
  byId("next").click();
  seen.second = column(0)[0];
  change("search", "WIDEN 704", "input");
  seen.found = [...new Set(column(9))];
  change("search", "", "input");
  change("status", "crash", "change");
  seen.crashes = [...new Set(column(5))];
  seen.scores = [...new Set(column(2))];
  change("status", "", "change");
  document.querySelectorAll("#experiments th button")[2].click();
  seen.best = column(2)[0];
  document.querySelectorAll("#experiments th button")[2].click();
  seen.worst = column(2)[0];
  show(3);
  await wait();
  const button = document.querySelector("#row-3 button");
  seen.opened = [button.getAttribute("aria-expanded"), !!document.querySelector(".opened pre")];
  button.click();
  seen.closed = [button.getAttribute("aria-expanded"), !!document.querySelector(".opened")];
  document.body.replaceChildren(JSON.stringify(seen));
})();
"""
    document, console = browse(driven(paths.page, driver), tmp_path)
    assert console == ""
    seen = json.loads(html.unescape(document.split("<body>")[1].split("</body>")[0]))
    scores = [one.val_bpb for one in state.experiments if one.val_bpb is not None]
    assert seen == {
        "first": ["400", "399"],
        "second": "300",
        "found": ["widen the hidden layer 640 → 704"],
        "crashes": ["crash"],
        "scores": ["–"],
        "best": f"{min(scores):.6f}",
        "worst": f"{max(scores):.6f}",
        "opened": ["true", True],
        "closed": ["false", False],
    }
