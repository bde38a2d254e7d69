import pytest
from hypothesis import given
from hypothesis import strategies as st

from weakseg.data.spelling import NearMiss, fold, near_misses


def test_example() -> None:
    (found,) = near_misses({"aeroplane": 44, "aeroplan": 1, "person": 90})
    assert found == NearMiss("aeroplan", 1, "aeroplane", 44)
    assert str(found) == "aeroplan (1) looks like aeroplane (44)"


@pytest.mark.parametrize(
    ("rare", "common"),
    [
        ("Cat", "cat"),
        ("cats", "cat"),
        ("cat", "cats"),
        ("buses", "bus"),
        ("puppies", "puppy"),
        ("dining-table", "dining table"),
        ("dining_table", "diningtable"),
        ("Dining Tables", "diningtable"),
    ],
)
def test_other_writings_of_a_word_are_found_at_any_frequency(rare: str, common: str) -> None:
    assert near_misses({rare: 49, common: 50}) == (NearMiss(rare, 49, common, 50),)


@pytest.mark.parametrize("typo", ["bicycl", "bicyclle", "bicicle", "bciycle", "Bicycel"])
def test_one_letter_is_found_where_the_tag_is_rare(typo: str) -> None:
    assert near_misses({typo: 2, "bicycle": 8}) == (NearMiss(typo, 2, "bicycle", 8),)
    assert near_misses({typo: 3, "bicycle": 8}) == ()


@pytest.mark.parametrize(("one", "other"), [("cat", "car"), ("bus", "bush"), ("sofa", "chair")])
def test_short_and_different_words_are_left_alone(one: str, other: str) -> None:
    assert near_misses({one: 1, other: 100}) == ()


def test_tags_without_letters_are_alike_only_if_they_are_the_same() -> None:
    assert near_misses({"😀": 2, "😡": 9, "..": 3, "?!": 1}) == ()


def test_a_whole_text_in_place_of_a_tag_takes_no_time() -> None:
    text = "word" * 25_000
    assert near_misses({text: 1, text + "x": 9}) == ()


def test_each_tag_is_compared_with_the_most_frequent_one() -> None:
    found = near_misses({"person": 90, "persons": 3, "Person": 5, "persn": 1})
    assert [(n.tag, n.like) for n in found] == [
        ("Person", "person"),
        ("persn", "person"),
        ("persons", "person"),
    ]


def test_classes_without_images_are_no_near_misses() -> None:
    assert near_misses({"aeroplane": 0, "aeroplan": 3}) == ()
    assert near_misses({"aeroplan": 0, "aeroplane": 3}) == ()


def test_tags_that_differ_in_case_or_spaces_are_taken_as_the_most_frequent() -> None:
    counts = {"Shoes": 2, "shoes": 9, "SHOES": 1, "Hair ": 3, "hat": 4, "dining  table": 1}
    taken_as, notes = fold(counts)
    assert taken_as == {
        "Shoes": "shoes",
        "shoes": "shoes",
        "SHOES": "shoes",
        "Hair ": "Hair",
        "hat": "hat",
        "dining  table": "dining table",
    }
    assert notes == (
        "tags that differ in case or spaces alone are taken as one: 'Hair ' as 'Hair'; 'SHOES',"
        " 'Shoes' as 'shoes'; 'dining  table' as 'dining table'",
    )


def test_characters_that_nobody_sees_are_no_difference() -> None:
    assert fold({"cat\u200b": 1, "cat": 2, "\ufeffcat": 1})[0] == {
        tag: "cat" for tag in ("cat\u200b", "cat", "\ufeffcat")
    }


def test_tags_are_taken_as_the_classes_that_are_declared() -> None:
    assert fold({"Cat": 9, "cat": 1}, ["cat", "dog"])[0] == {"Cat": "cat", "cat": "cat"}
    assert fold({"Cat": 9, "cat": 1, "CAT": 1}, ["cat", "Cat"]) == (
        {"Cat": "Cat", "cat": "cat", "CAT": "CAT"},
        (),
    )


@given(st.dictionaries(st.text("aA bß\u200b", min_size=1), st.integers(1, 9)))
def test_what_is_folded_stays_so(counts: dict[str, int]) -> None:
    taken_as, _ = fold(counts)
    assert taken_as.keys() == counts.keys()
    again, notes = fold(dict.fromkeys(taken_as.values(), 1))
    assert notes == ()
    assert all(again[tag] == tag for tag in taken_as.values())
    assert len(set(taken_as.values())) == len({*again})
