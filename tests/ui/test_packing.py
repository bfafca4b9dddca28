"""Texts cut to what one message holds, at every limit."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from bot.ui.limits import length
from bot.ui.literal import bold, literal
from bot.ui.packing import Passage, pack
from bot.ui.readback import body

_texts = st.text(st.sampled_from("ab *_`\\\n😀\u200b日-#.:/@<|"), max_size=400)
_labels = st.sampled_from(["-# 1", "-# 10", "-# Prompt"])
_notes = st.sampled_from(["", "-# GPT-2 ended the text here."])
_passages = st.builds(Passage, _labels, _texts, _texts, _notes)


@given(passage=_passages)
def test_a_passage_that_fits_stays_whole(passage: Passage) -> None:
    assert passage.within(length(passage.whole)) == passage.whole
    assert body(passage.whole.strip()) == passage.prompt + passage.text


@settings(deadline=None)
@given(label=_labels, prompt=st.text("ab*\n", max_size=20), text=_texts, note=_notes, room=st.integers(150, 500))
def test_a_sample_is_cut_at_its_end(label: str, prompt: str, text: str, note: str, room: int) -> None:
    passage = Passage(label, prompt, text, note)
    shown = passage.within(room)
    assert length(shown) <= room
    assert shown.startswith(label)
    assert shown.endswith(note)
    if shown != passage.whole:
        kept = body(shown)
        assert kept.endswith("…")
        assert (prompt + text).startswith(kept[:-1])
        longer = bold(prompt) + literal(text[: len(kept) - len(prompt)] + "…")
        assert length(f"{label}\n{longer}") + (length(note) + 1 if note else 0) > room - 1, "one more would have fitted"


@settings(deadline=None)
@given(prompt=_texts, room=st.integers(60, 500))
def test_a_lone_prompt_is_cut_in_the_middle(prompt: str, room: int) -> None:
    passage = Passage("-# Prompt", prompt)
    shown = passage.within(room)
    assert length(shown) <= room
    if shown != passage.whole:
        begin, _, end = body(shown).partition("…")
        assert prompt.startswith(begin)
        assert prompt.endswith(end)


@settings(deadline=None)
@given(passages=st.lists(st.builds(Passage, _labels, st.just("p"), _texts, _notes), min_size=1, max_size=11))
def test_all_of_them_together_stay_within_the_budget(passages: list[Passage]) -> None:
    whole = [passage.whole for passage in passages]
    for budget in (sum(map(length, whole)), 2000, 700):
        packed = pack(passages, budget)
        assert len(packed) == len(passages)
        assert sum(map(length, packed)) <= budget
        if sum(map(length, whole)) <= budget:
            assert packed == whole
