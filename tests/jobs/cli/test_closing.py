"""What a command says at its end."""

from __future__ import annotations

import pytest

from engine.presets import preset
from jobs import label, run
from jobs.cli.closing import print_closing
from jobs.cli.command import parse


def test_end_says_how_much_what_failed_where_it_is_and_what_to_do_next(capsys: pytest.CaptureFixture[str]) -> None:
    options = run.Run(data="my photos/m.csv", out="runs/x/", settings=preset("tiny"))
    print_closing("run", options, {"images": 500, "errors": {"decode": 2, "fetch": 1}}, 740.0)
    assert capsys.readouterr().out.splitlines() == [
        "done in 12 min: 500 images, 3 with an error (decode: 2, fetch: 1)",
        "masks: runs/x/masks",
        "network: runs/x/segmentation",
        "report: runs/x/report.html",
        "next: tag2mask export --data 'my photos/m.csv' --masks runs/x/masks --format voc --out EXPORTED",
    ]


def test_next_command_of_the_labeling_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--data", "m.csv", "--cam", "c", "--affinity", "a", "--out", "masks"]
    print_closing("label", parse(label.Label, given), {"images": 5, "errors": {}}, 3.2)
    assert capsys.readouterr().out.splitlines() == [
        "done in 3 s: 5 images",
        "masks: masks",
        "next: tag2mask report --data m.csv --masks masks",
    ]


def test_jobs_without_a_successor_say_nothing_more(capsys: pytest.CaptureFixture[str]) -> None:
    print_closing("evaluate", object(), {"images": 5, "miou": 0.5}, 3.2)
    assert capsys.readouterr().out == ""
