"""The report keeps its numbers through the file, renders each of them, and asks the network for nothing."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from edgeav import render
from edgeav import report as reports
from edgeav.choose import choose
from edgeav.errors import EdgeavError
from edgeav.profiling import Golden, Instructions, IntegerShare, Milliseconds, Operator, Profile
from edgeav.recipe import Budget, WerBudget
from edgeav.report import (
    BundleRow,
    Check,
    CorpusRow,
    Environment,
    Increase,
    ModelRow,
    PairRow,
    ParityRow,
    Report,
    SplitRow,
    StageRow,
    Verdict,
    WerRow,
)

SPLITS = {
    "test_synthetic": SplitRow(utterances=400, words=2400, synthetic=True, speakers="unseen"),
    "test_seen": SplitRow(utterances=240, words=1440, synthetic=False, speakers="seen"),
    "test_unseen": SplitRow(utterances=210, words=1260, synthetic=False, speakers="unseen"),
}
# Invented numbers of a plausible size: target -> precision -> (MB, p50 ms, load ms).
TARGETS = {
    "onnxruntime": {"fp32": (19.8, 58.6, 92.0), "int8": (5.9, 31.2, 120.0)},
    "openvino": {"fp32": (19.6, 61.4, 210.0), "int8": (5.7, 29.5, 260.0)},
    "executorch-xnnpack": {"fp32": (19.7, 68.8, 31.0), "int8": (5.6, 36.0, 24.0)},
}


def a_profile(target: str, precision: str) -> Profile:
    _, p50, load_ms = TARGETS[target][precision]
    times = Milliseconds(p50=p50, p90=1.05 * p50, p99=1.2 * p50, mean=1.01 * p50, min=0.97 * p50)
    measurable = target != "executorch-xnnpack"
    return Profile(
        bundle=f"{target}-{precision}",
        engine=target.split("-")[0],
        precision=precision,
        model_sha256={"model": "ab" * 32},
        model_bytes=5_900_000,
        device="this-machine",
        emulated=False,
        arch="x86_64",
        cpu="A Processor of 2026",
        isa=["avx2", "avx512_vnni"],
        governor=None,
        runtime="a runtime 1.0",
        threads=1,
        seconds=4.0,
        steps=50,
        n=50,
        warmup=5,
        import_ms=80.0,
        load_ms=load_ms,
        first_ms=1.4 * p50,
        wall_ms=times,
        cpu_ms=times,
        rtf=p50 / 4000,
        peak_rss_mb=180.0,
        runtime_rss_mb=70.0,
        golden=Golden(cases=3, max_abs=2e-5),
        operators=some_operators(precision == "int8", p50) if measurable else None,
        integer_share=IntegerShare(time=0.63, nodes=0.9) if measurable and precision == "int8" else None,
        not_measured={} if measurable else {"operators": "this engine's Python runtime tells nothing"},
    )


def some_operators(integer: bool, p50: float) -> list[Operator]:
    names = ["Conv", "MatMul", "Gemm", "LayerNormalization", "Softmax", "Sigmoid", "Mul", "Add", "Transpose"]
    shares = [0.46, 0.2, 0.11, 0.06, 0.05, 0.04, 0.03, 0.03, 0.02]
    return [
        Operator(
            type=("QLinear" + name) if integer and index < 2 else name,
            nodes=40 - 3 * index,
            ms=share * p50,
            share=share,
            integer=integer and index < 2,
        )
        for index, (name, share) in enumerate(zip(names, shares, strict=True))
    ]


def a_wer(split: str, precision: str) -> WerRow:
    points = {"test_synthetic": 11.4, "test_seen": 6.8, "test_unseen": 38.2}[split] + 0.3 * (precision == "int8")
    return WerRow(
        wer=points,
        low=0.86 * points,
        high=1.15 * points,
        utterances=SPLITS[split].utterances,
        words=1260,
        substitutions=70,
        deletions=11,
        insertions=4,
    )


def a_bundle(target: str, precision: str) -> BundleRow:
    return BundleRow(
        target=target,
        engine=target.split("-")[0],
        precision="int8" if precision == "int8" else "fp32",
        size_mb=TARGETS[target][precision][0],
        parity=ParityRow(
            max_abs=3.1e-5 if precision == "fp32" else 0.21, transcripts_equal=True, lengths=[13, 50, 121]
        ),
        wer={split: a_wer(split, precision) for split in SPLITS},
        profile={"this-machine": a_profile(target, precision)},
        integer_share=0.63 if precision == "int8" else 0.0,
    )


def a_pair(target: str) -> PairRow:
    (fp32_mb, fp32_ms, _), (int8_mb, int8_ms, _) = TARGETS[target]["fp32"], TARGETS[target]["int8"]
    ratio = fp32_ms / int8_ms
    increase = {split: Increase(abs=0.3, low=-0.1, high=0.7) for split in SPLITS}
    return PairRow(
        target=target,
        device="this-machine",
        cpu_ratio=ratio,
        wall_ratio=ratio,
        size_ratio=int8_mb / fp32_mb,
        wer_increase=increase,
    )


@pytest.fixture
def report() -> Report:
    broken = Check(
        name="speed",
        target="onnxruntime",
        value=1.88,
        limit=2.0,
        passed=False,
        say="int8 on onnxruntime is 1.88x as fast as fp32; the recipe wants 2.00x (0.12 short)",
    )
    kept = broken.model_copy(
        update={
            "name": "wer",
            "value": 0.3,
            "limit": 1.0,
            "passed": True,
            "say": "int8 on onnxruntime loses 0.30 points of WER [-0.10, 0.70]; allowed 1.00",
        }
    )
    return Report(
        recipe={"schema": "edgeav/1", "name": "int8", "stages": [{"quantize": {"format": "int8"}}]},
        model=ModelRow(name="av-conformer-demo", params=4_932_107, gmac_per_second=0.68),
        corpus=CorpusRow(name="grid", splits=SPLITS),
        environment=Environment(
            versions={"edgeav": "0.1.0", "torch": "2.14.1", "onnxruntime": "1.31.1"},
            cpu="A Processor of 2026",
            isa=["avx2", "avx512_vnni"],
            threads=1,
            commit="0123abc",
            date="2026-11-21",
        ),
        verdict=Verdict(passed=False, checks=[kept, broken]),
        stages=[StageRow(name="01-quantize", seconds=3.2)],
        bundles=[a_bundle(target, precision) for target in TARGETS for precision in ("fp32", "int8")],
        pairs=[a_pair(target) for target in TARGETS],
        eager=a_bundle("onnxruntime", "fp32").wer,
        notes=["A note with <b>markup</b> | and a bar."],
    )


def printed(report: Report) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    reports.print_table(report, console)
    return console.export_text()


def test_a_report_comes_back_from_its_file_as_it_was_written(report: Report, tmp_path: Path) -> None:
    reports.write(report, tmp_path)
    assert reports.load(tmp_path) == report


def test_writing_leaves_exactly_the_three_files(report: Report, tmp_path: Path) -> None:
    page = reports.write(report, tmp_path / "new" / "folder")
    assert page == tmp_path / "new" / "folder" / "report.html"
    assert sorted(path.name for path in page.parent.iterdir()) == ["report.html", "report.json", "report.md"]


class Page(HTMLParser):
    """Collects what a browser would fetch, and checks that elements nest."""

    VOID = frozenset(("meta", "link", "br", "img", "hr"))

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.requests += [f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag in ("script", "link", "iframe"):
            self.requests.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.requests += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"


def test_the_page_nests_and_asks_the_network_for_nothing(report: Report) -> None:
    text = render.render("report.html.j2", report)
    page = Page()
    page.feed(text)
    assert page.requests == []
    assert page.open == []
    assert not re.search(r"https?://|@import|url\(", text)
    assert len(text) < 200_000


def test_the_page_shows_every_number_of_every_bundle(report: Report) -> None:
    text = render.render("report.html.j2", report)
    for bundle in report.bundles:
        assert f"{bundle.size_mb:.1f}" in text
        assert f"{bundle.profile['this-machine'].wall_ms.p50:.1f}" in text
        assert all(f"{row.wer:.1f}" in text for row in bundle.wer.values())


def test_names_and_notes_cannot_inject_markup(report: Report) -> None:
    text = render.render("report.html.j2", report)
    assert "<b>markup</b>" not in text
    assert "&lt;b&gt;markup" in text


def test_the_page_says_which_numbers_are_real_and_which_are_generated(report: Report) -> None:
    text = re.sub(r"<[^>]*>", "", render.render("report.html.j2", report))
    assert "Real recordings of people: test_seen, test_unseen." in text
    assert "Generated speech and rendered mouths: test_synthetic." in text


def test_without_real_recordings_the_page_says_so(report: Report) -> None:
    splits = {"test_synthetic": SPLITS["test_synthetic"]}
    synthetic = report.model_copy(update={"corpus": CorpusRow(name="demo", splits=splits)})
    assert "No recording of a person was used" in render.render("report.html.j2", synthetic)


def emulated_on_a_pi(report: Report) -> Report:
    """The same bundles, measured on a device that is emulated: its times are numbers that must not be shown."""
    counted = {"instructions": Instructions(per_second=31_400_000, how="counted")}
    times = Milliseconds(p50=77777.7, p90=77777.7, p99=77777.7, mean=77777.7, min=77777.7)
    update = {"device": "pi", "emulated": True, "wall_ms": times, "cpu_ms": times, **counted}
    bundles = [
        bundle.model_copy(update={"profile": {"pi": bundle.profile["this-machine"].model_copy(update=update)}})
        for bundle in report.bundles
    ]
    return report.model_copy(update={"bundles": bundles, "pairs": []})


@pytest.mark.parametrize("template", ["report.html.j2", "report.md.j2"])
def test_no_time_of_an_emulated_device_is_shown_but_its_instructions_are(report: Report, template: str) -> None:
    page = render.render(template, emulated_on_a_pi(report))
    assert "77777.7" not in page and "Latency on pi" not in page
    assert "Emulated" in page and "pi" in page and "31.4" in page


def test_each_device_gets_the_fastest_bundle_within_the_wer_budget(report: Report) -> None:
    def found(report: Report, limit: float) -> list[tuple[str, str, str]]:
        targets = {bundle.target for bundle in report.bundles}
        increases = {target: Increase(abs=0.1, low=-0.2, high=0.4) for target in targets}
        budget = Budget(wer=WerBudget(max_increase_abs=limit, ci=95, min_utterances=1))
        return [(row.device, row.precision, row.by) for row in choose(report.bundles, increases, budget)]

    fastest = min(report.bundles, key=lambda bundle: bundle.profile["this-machine"].wall_ms.p50)
    assert found(report, 0.5) == [("this-machine", fastest.precision, "p50_ms")]
    assert [row[1] for row in found(report, 0.3)] == ["fp32"], "int8 loses more than allowed"
    assert [row[2] for row in found(emulated_on_a_pi(report), 0.5)] == ["instructions"]


@pytest.mark.parametrize("template", ["report.html.j2", "report.md.j2"])
def test_a_report_of_nothing_but_a_model_still_renders(report: Report, template: str) -> None:
    update = {"bundles": [], "pairs": [], "stages": [], "notes": [], "verdict": Verdict(passed=True)}
    assert "no budget set" in render.render(template, report.model_copy(update=update)).lower()


def test_a_bundle_measured_on_one_split_only_renders(report: Report) -> None:
    bundle = report.bundles[0].model_copy(update={"wer": {"test_seen": a_wer("test_seen", "fp32")}, "parity": None})
    for template in ("report.html.j2", "report.md.j2"):
        assert "test_seen" in render.render(template, report.model_copy(update={"bundles": [bundle], "pairs": []}))


def test_every_markdown_table_has_equally_many_cells_in_every_row(report: Report) -> None:
    text = render.render("report.md.j2", report)
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.M)
    assert len(tables) == len(re.findall(r"^## ", text, flags=re.M)) - 1  # the notes are a list
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.strip().splitlines()}
        assert len(widths) == 1, table
        assert len(table.strip().splitlines()) > 2, table


def test_the_table_at_the_end_of_a_run_names_the_broken_check(report: Report) -> None:
    text = printed(report)
    assert "budget broken: 1 of 2 checks" in text
    assert "0.12 short" in text
    assert "10.1–13.5" in text  # int8 on test_synthetic


def test_a_kept_budget_and_a_missing_one_read_differently(report: Report) -> None:
    kept = Verdict(passed=True, checks=[check for check in report.verdict.checks if check.passed])
    assert "budget kept: 1 check" in printed(report.model_copy(update={"verdict": kept}))
    assert "no budget set" in printed(report.model_copy(update={"verdict": Verdict(passed=True)}))


def test_a_missing_report_says_which_command_writes_it(tmp_path: Path) -> None:
    with pytest.raises(EdgeavError, match=r"report\.json does not exist.*edgeav compress"):
        reports.load(tmp_path)


def test_a_truncated_report_is_a_clear_error(report: Report, tmp_path: Path) -> None:
    reports.write(report, tmp_path)
    whole = (tmp_path / "report.json").read_bytes()
    (tmp_path / "report.json").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EdgeavError, match="not a readable report"):
        reports.load(tmp_path)


def test_a_folder_that_cannot_be_written_is_a_users_error(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeavError, match="cannot write"):
        reports.write(report, tmp_path / "file")


@pytest.mark.parametrize("value", [0.0, 0.7, 1.0, 3.2, 61.4, 99.0, 101.0, 4999.0])
def test_an_axis_ends_at_or_above_its_largest_value_and_not_far_above(value: float) -> None:
    end = render._ceiling(value)
    assert end >= value
    assert value == 0 or end <= 1.6 * value


def test_what_is_left_is_said_in_words() -> None:
    assert render.fewer(2_215_177, 4_354_433) == "2.0 times fewer"
    assert render.fewer(4_354_433, 4_354_433) == "as many"
