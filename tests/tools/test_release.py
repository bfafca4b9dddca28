from __future__ import annotations

import pytest

from tools.release import notes

CHANGELOG = """\
# Changelog

## [Unreleased]

- new

## [1.1.0] - 2026-11-27

### Added

- this

## [1.0.0] - 2026-01-01
"""


def test_the_notes_are_the_versions_section() -> None:
    assert notes("v1.1.0", "1.1.0", CHANGELOG) == "### Added\n\n- this\n"


@pytest.mark.parametrize(
    ("tag", "version", "sentence"),
    [
        ("v1.2.0", "1.1.0", "the tag is v1.2.0, but pyproject.toml has the version 1.1.0"),
        ("v1.2.0", "1.2.0", r"no section \[1.2.0\]"),
        ("v1.0.0", "1.0.0", r"no section \[1.0.0\]"),
    ],
)
def test_a_tag_that_does_not_fit_is_refused(tag: str, version: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        notes(tag, version, CHANGELOG)
