from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from weakseg.data.tag_faults import FEW, FEW_PHOTOS, few_lines, find_tag_faults

TAGS = st.lists(st.sets(st.sampled_from("abcd")), max_size=80)


def photos(**numbers: int) -> list[tuple[str, ...]]:
    """Tags of photos: `a_b=3` stands for three with a and b, `none=3` for three with nothing."""
    return [
        () if names == "none" else tuple(names.split("_"))
        for names, number in numbers.items()
        for _ in range(number)
    ]


def test_a_tag_that_is_everywhere_is_named_with_what_helps() -> None:
    faults = find_tag_faults(photos(skin=120, skin_hat=78, hat=2))
    assert faults.everywhere == ("skin",)
    (line,) = faults.lines()
    assert "'skin' is on 198 of 200 photos: 2 photos without it" in line
    assert """'data.drop_classes=["skin"]'""" in line
    assert faults.of("skin") == "on 198 of 200 photos"
    assert faults.of("hat") is None


def test_a_few_photos_without_a_tag_are_too_few_of_any_number() -> None:
    assert find_tag_faults(photos(skin=60, none=FEW - 1)).everywhere == ("skin",)
    assert find_tag_faults(photos(skin=60, none=FEW)).everywhere == ()
    assert find_tag_faults(photos(skin=969, none=51)).everywhere == ("skin",)
    assert find_tag_faults(photos(skin=968, none=52)).everywhere == ()


def test_the_only_tag_is_not_to_be_left_out() -> None:
    (line,) = find_tag_faults(photos(cat=30)).lines()
    assert "'cat' is on 30 of 30 photos: nothing teaches what it is not. " in line
    assert "drop_classes" not in line


def test_what_is_on_nearly_all_photos_is_not_learned_if_others_are_left() -> None:
    faults = find_tag_faults(photos(skin=95, skin_hat=95, hat=10))
    assert faults.unlearned == ("skin",)
    assert "so no classifier learns it, and its masks stay empty. Add " in next(faults.lines())
    for alone in (photos(cat=30), photos(cat_dog=30)):
        assert find_tag_faults(alone).unlearned == ()
        assert "flood" in next(find_tag_faults(alone).lines())
    few_without = find_tag_faults(photos(skin=60, hat=FEW - 1))
    assert few_without.everywhere == ("skin",) and few_without.unlearned == ()


def test_tags_that_nothing_tells_apart() -> None:
    faults = find_tag_faults(photos(rails_train=43, train=1, car=60, car_bus=12))
    (pair,) = faults.together
    assert (pair.tag, pair.beside, pair.photos, pair.both, pair.apart) == (
        "rails",
        "train",
        43,
        43,
        1,
    )
    assert faults.of("rails") == "with train"
    assert faults.of("train") == "with rails"
    (line,) = faults.lines()
    assert "1 photo with one of them alone, 43 with both" in line
    # A bus is never without a car, but sixty cars without a bus tell them apart.
    assert [(p.tag, p.beside, p.together) for p in faults.pairs] == [
        ("rails", "train", True),
        ("bus", "car", False),
    ]
    assert str(faults.pairs[1]) == (
        "bus: 12 of its 12 photos have car; 60 photos with one of them alone"
    )


def test_a_tag_that_is_everywhere_is_in_no_pair() -> None:
    assert find_tag_faults(photos(skin_shoe=40, skin=300)).pairs == ()


def test_rare_tags_share_a_line_that_is_cut() -> None:
    many = {f"t{i:02}": 1 + i % 3 for i in range(80)}
    faults = find_tag_faults(photos(common=50, **many))
    assert len(faults.rare) == 80
    (line,) = faults.lines()
    assert "t00 (1)" in line
    assert "and 75 more" in line
    assert len(line) < 400
    assert faults.of("t00") == "on 1 photo"
    assert "drop_classes" not in line  # nothing would be left


def test_a_few_rare_tags_can_be_left_out() -> None:
    (line,) = find_tag_faults(photos(cat=40, dog=40, emu=3)).lines()
    assert line.startswith("On fewer than 10 photos: emu (3).")
    assert """'data.drop_classes=["emu"]'""" in line


def test_no_photos_have_no_faults() -> None:
    faults = find_tag_faults([])
    assert (faults.photos, list(faults.lines())) == (0, [])


@given(TAGS)
def test_counts_are_those_of_a_plain_loop(tags: list[set[str]]) -> None:
    faults = find_tag_faults(tags)
    for tag in "abcd":
        assert faults.counts.get(tag, 0) == sum(tag in of_photo for of_photo in tags)
    for pair in faults.pairs:
        one = [of_photo for of_photo in tags if pair.tag in of_photo]
        both = [of_photo for of_photo in one if pair.beside in of_photo]
        alone = [of_photo for of_photo in tags if len({pair.tag, pair.beside} & of_photo) == 1]
        assert (pair.photos, pair.both, pair.apart) == (len(one), len(both), len(alone))


@given(TAGS)
def test_faults_depend_on_no_order(tags: list[set[str]]) -> None:
    assert find_tag_faults(tags) == find_tag_faults(tags[::-1])


@given(TAGS)
def test_new_names_change_nothing_else(tags: list[set[str]]) -> None:
    for names in list(permutations("abcd"))[::7]:
        new = dict(zip("abcd", names, strict=True))
        renamed = find_tag_faults([{new[tag] for tag in of_photo} for of_photo in tags])
        faults = find_tag_faults(tags)
        assert set(renamed.everywhere) == {new[tag] for tag in faults.everywhere}
        assert set(renamed.rare) == {new[tag] for tag in faults.rare}
        assert {frozenset((p.tag, p.beside)) for p in renamed.together} == {
            frozenset((new[p.tag], new[p.beside])) for p in faults.together
        }


def test_few_photos_and_classes_of_one_or_two_are_told_what_to_expect() -> None:
    enough = photos(cat=FEW_PHOTOS - FEW, dog=FEW)
    assert list(few_lines(find_tag_faults(enough))) == []
    (few,) = few_lines(find_tag_faults(enough[1:]))
    assert few.startswith("49 photos are few to learn from: expect masks that are rough")
    assert "weakseg label" in few
    (rare,) = few_lines(find_tag_faults([*enough, ("owl",), ("owl",), ("hat",)]))
    assert rare.startswith("On fewer than 3 photos: hat, owl. Expect no usable masks of them.")
