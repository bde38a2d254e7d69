"""Which of ImageNet's classes tags mean."""

import pytest

from weakseg.data.imagenet import Meaning, match_tag, match_tags, near_words, readings
from weakseg.errors import WeaksegError


def names(tag: str) -> set[str]:
    match = match_tag(tag)
    assert match
    return set(match.names)


def test_a_word_stands_for_its_class_or_for_the_kinds_of_what_it_means() -> None:
    cat = match_tag("cat")
    assert cat and cat.meaning is Meaning.CLASSES
    assert cat.outputs == (281, 282, 283, 284, 285, 286, 287)
    assert cat.names[0] == "tabby"
    dog = match_tag("dog")
    assert dog and dog.outputs == tuple(range(151, 269))
    assert names("aeroplane") == names("airplane") == names("plane") == {"airliner"}
    assert names("person") == {"ballplayer", "groom", "scuba diver"}
    animal = match_tag("animal")
    assert animal and {*cat.outputs, *dog.outputs} < {*animal.outputs}


@pytest.mark.parametrize("tag", ["cats", "Cat", " CAT ", "kitty-cat", "true cat"])
def test_case_plural_and_synonyms_do_not_matter(tag: str) -> None:
    assert names(tag) & names("cat")


def test_irregular_plurals_are_known() -> None:
    for many, one in (("wolves", "wolf"), ("geese", "goose"), ("butterflies", "butterfly")):
        assert names(many) == names(one)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("diningtable", "dining table"),
        ("dining_table", "dining table"),
        ("trafficLight", "traffic light"),
        ("cell phone", "cellphone"),
        ("Potted Plant", "plant"),
        ("pottedplant", "plant"),
        ("big red sports cars", "sports car"),
    ],
)
def test_several_words_are_known_together_or_by_the_last(written: str, meant: str) -> None:
    assert names(written) == names(meant)


def test_no_part_is_taken_of_a_word_that_means_something_else() -> None:
    assert match_tag("case") and match_tag("suitcase") is None
    assert match_tag("ant") and match_tag("elegant") is None
    assert match_tag("") is None and match_tag("!?") is None
    assert list(readings("elegant"))[:1] == ["elegant"] and "ant" not in readings("elegant")


def test_of_several_meanings_the_one_with_most_classes_counts() -> None:
    assert names("plant") == {"daisy", "yellow lady's slipper"}  # and not the lumbermill
    assert len(names("car")) == 10  # and not the freight car


def test_kinds_of_a_class_and_kin_of_living_things_are_told_as_such() -> None:
    racket, cow, woman = (match_tag(tag) for tag in ("tennis racket", "cow", "woman"))
    assert racket and cow and woman
    assert racket.meaning is Meaning.KIND
    assert (cow.meaning, cow.names, cow.notion) == (Meaning.KIN, ("ox",), "cattle")
    people = (
        "person",
        "women",
        "policemen",
        "people",
        "human",
        "young men",
        "cyclists",
        "children",
    )
    assert {frozenset(names(tag)) for tag in ("woman", *people)} == {frozenset(woman.names)}
    assert str(cow) == "cow: ox, its kin (cattle)"
    assert str(match_tag("pottedplant")).startswith("pottedplant: 'plant', daisy,")
    assert str(match_tag("cats")) == (
        "cats: tabby, tiger cat (domestic cat), Persian cat and 4 more"
    )


def test_classes_are_called_by_what_their_photos_show() -> None:
    assert names("tv") == {"television receiver"} and names("cup") == {"cup"}


def test_all_unknown_tags_are_named_in_one_line_with_near_ones() -> None:
    with pytest.raises(WeaksegError) as caught:
        match_tags(["cat", "toilet", "gizmo", "umbrela"])
    message = str(caught.value)
    assert "\n" not in message and "'cat'" not in message and "'gizmo'" in message
    assert "'toilet' (near: toilet seat, toilet paper" in message
    assert near_words("umbrela")[0] == "umbrella" and "'umbrela' (near: umbrella" in message
