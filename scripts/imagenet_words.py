"""Make `weakseg/data/imagenet_words.tsv`: which words mean which of ImageNet's classes, by WordNet.

    apt-get download wordnet-base && dpkg-deb -x wordnet-base_*.deb wordnet
    python scripts/imagenet_words.py --wordnet wordnet/usr/share/wordnet

ImageNet's classes are synsets of WordNet 3.0; timm lists them in the order of a classifier's
outputs. What the columns of the table are is said in `weakseg.data.imagenet`, which reads it.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import timm

import weakseg.data
from weakseg.data.imagenet import NOTHING, TABLE, Meaning, key_of, readings
from weakseg.data.spelling import plurals

HEAD = """\
# Words for the outputs of an ImageNet-1k classifier, made by scripts/imagenet_words.py.
# From WordNet 3.0, Copyright 2006 by Princeton University, all rights reserved. Its licence:
# https://wordnet.princeton.edu/license-and-commercial-use
"""
SYNSETS = Path(timm.__file__).parent / "data" / "_info" / "imagenet_synsets.txt"
SHOWN = {"04404412": "04405907", "07930864": "03147509"}
"""What the photos of two classes show: television sets, and not the system; cups, and no punch."""
ANIMAL, PERSON, TOP = 5, 18, 3
"""WordNet's numbers of its files of animals and people, who look like their kin, and of the widest
notions, among them "person"."""
THINGS = (ANIMAL, 6, 8, 13, 17, 20, 27)
"""Animals, artefacts, bodies, food, natural objects, plants, substances."""
PEOPLE = frozenset(
    """
    adult athlete baby boy bride bridegroom child commuter cook crowd cyclist dancer daughter doctor
    driver farmer father firefighter fisherman gentleman girl grandfather grandmother guest guy
    husband infant kid lady man mother musician nurse parent passenger pedestrian performer
    player policeman policewoman rider runner sailor seller singer skater skier
    soldier son spectator student surfer swimmer teacher teenager toddler tourist traveler visitor
    waiter waitress walker wife woman worker
    """.split()  # noqa: SIM905
) | {"police officer", "young man", "young woman", "old man", "old woman"}
"""Whom tags name. WordNet's other kinds of people are offices, peoples, creeds and insults."""
ANYONE, PERSONS = ("human", "people"), "00007846"
"""To WordNet a hominid and a group; in a tag, persons."""

MOST_KIN = 10
"""Classes of which a relative may be: what is wider says too little of how it looks."""


@dataclass(frozen=True)
class Synset:
    """A notion of WordNet.

    Attributes:
        topic: number of the file that WordNet keeps it in.
        words: its synonyms.
        wider: the notions that it is a kind of.
    """

    topic: int
    words: tuple[str, ...]
    wider: tuple[str, ...]


@dataclass(frozen=True)
class WordNet:
    """WordNet's nouns.

    Attributes:
        synsets: by their number.
        senses: a word's synsets, the most frequent first.
        irregular: word -> its irregular plurals.
    """

    synsets: Mapping[str, Synset]
    senses: Mapping[str, tuple[str, ...]]
    irregular: Mapping[str, tuple[str, ...]]

    @classmethod
    def read(cls, folder: Path) -> "WordNet":
        """Read `data.noun`, `index.noun` and `noun.exc`, as wndb(5WN) describes them."""
        synsets = dict(_synset(line) for line in _lines(folder / "data.noun"))
        senses = {}
        for line in _lines(folder / "index.noun"):
            fields = line.split()
            word, count = _spaced(fields[0]), int(fields[2])
            senses[word] = tuple(fields[-count:])
        irregular: dict[str, tuple[str, ...]] = defaultdict(tuple)
        for line in _lines(folder / "noun.exc"):
            plural, *words = map(_spaced, line.split())
            for word in words:
                irregular[word] += (plural,)
        return cls(synsets, senses, irregular)

    def ancestors(self, synset: str) -> Iterator[tuple[str, ...]]:
        """What a notion is a kind of, directly, and then level by level."""
        level = self.synsets[synset].wider
        while level:
            yield level
            level = tuple(w for one in level for w in self.synsets[one].wider)


@dataclass(frozen=True)
class Table:
    """Which outputs words stand for.

    Attributes:
        net: the words and what they mean.
        classes: ImageNet's synsets, in the order of the outputs.
    """

    net: WordNet
    classes: Mapping[str, int]

    @cached_property
    def outputs(self) -> Mapping[str, set[int]]:
        """Synset -> the outputs that are kinds of it; for all that have any."""
        outputs: dict[str, set[int]] = defaultdict(set)
        for synset, output in self.classes.items():
            for level in ((synset,), *self.net.ancestors(synset)):
                for wider in level:
                    outputs[wider].add(output)
        return dict(outputs)

    def name(self, synset: str) -> str:
        """A synset's first word, and what it is a kind of where the word means others first."""
        word = self.net.synsets[synset].words[0]
        if self.net.senses[word.lower()][0] == synset:
            return word
        wider = self.net.synsets[self.net.synsets[synset].wider[0]].words[0]
        return f"{word} ({wider})"

    def _meaning(self, word: str) -> tuple[str, Meaning] | None:
        """The synset whose outputs a word stands for, and how."""
        if word in ANYONE:
            return PERSONS, Meaning.CLASSES
        senses = self.net.senses[word]
        if own := [sense for sense in senses if sense in self.outputs]:
            return max(own, key=lambda sense: len(self.outputs[sense])), Meaning.CLASSES
        for sense in senses:
            for level in self.net.ancestors(sense):
                if known := [wider for wider in level if wider in self.classes]:
                    return known[0], Meaning.KIND
        kin = self._kin(senses[0])
        if not kin or len(self.outputs[kin]) > MOST_KIN:
            return None
        topics = self.net.synsets[senses[0]].topic, self.net.synsets[kin].topic
        animal = topics == (ANIMAL, ANIMAL)
        person = topics in ((PERSON, PERSON), (PERSON, TOP)) and word in PEOPLE
        return (kin, Meaning.KIN) if animal or person else None

    def _kin(self, synset: str) -> str | None:
        """The nearest of what a notion is a kind of that has any outputs."""
        for level in self.net.ancestors(synset):
            if found := [wider for wider in level if wider in self.outputs]:
                return min(found, key=lambda wider: len(self.outputs[wider]))
        return None

    def rows(self) -> Iterator[str]:
        """The table's lines, those of the classes first."""
        words: dict[str, dict[Meaning, list[str]]] = defaultdict(lambda: defaultdict(list))
        known = set()
        for word in sorted(self.net.senses, key=lambda word: (len(word.split()), word)):
            if (key := key_of(word)) in known or not (found := self._meaning(word)):
                continue
            known.add(key)
            odd = (p for p in self.net.irregular[word] if key_of(p) not in plurals(key))
            words[found[0]][found[1]] += [word, *odd]
        wider = sorted(
            words.keys() - self.classes.keys(), key=lambda synset: (self.name(synset), synset)
        )
        for synset in (*self.classes, *wider):
            columns = (";".join(words[synset][meaning]) for meaning in Meaning)
            yield "\t".join((self.name(synset), _ranges(sorted(self.outputs[synset])), *columns))
        yield "\t".join((NOTHING, "", ";".join(self._unknown(known)), "", ""))

    def _unknown(self, known: Set[str]) -> Iterator[str]:
        """Words for things that mean no class, and would be taken for their last part."""
        for word, senses in self.net.senses.items():
            if key_of(word) in known or known.isdisjoint(readings(word)):
                continue
            synset = self.net.synsets[senses[0]]
            if synset.topic in THINGS and synset.wider:
                yield word


def _lines(path: Path) -> Iterator[str]:
    """Lines of a file of WordNet, without its licence, which is indented."""
    with path.open(encoding="ascii") as file:
        yield from (line for line in file if not line.startswith("  "))


def _spaced(word: str) -> str:
    return word.replace("_", " ")


def _synset(line: str) -> tuple[str, Synset]:
    number, topic, _, count, *rest = line.split(" | ")[0].split()
    end = 2 * int(count, 16)
    pointers = rest[end + 1 :]
    wider = (pointers[i + 1] for i in range(0, len(pointers), 4) if pointers[i] == "@")
    return number, Synset(int(topic), tuple(map(_spaced, rest[:end:2])), tuple(wider))


def _ranges(numbers: list[int]) -> str:
    """Ascending numbers as `3,7-9`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wordnet", type=Path, required=True, help="folder of data.noun")
    parser.add_argument("--out", type=Path, default=Path(weakseg.data.__file__).parent / TABLE)
    arguments = parser.parse_args()
    synsets = (synset.removeprefix("n") for synset in SYNSETS.read_text(encoding="ascii").split())
    classes = {SHOWN.get(synset, synset): output for output, synset in enumerate(synsets)}
    table = Table(WordNet.read(arguments.wordnet), classes)
    text = HEAD + "\n".join(table.rows()) + "\n"
    arguments.out.write_text(text, encoding="utf-8")
    print(f"{len(text):,} bytes in {arguments.out}")


if __name__ == "__main__":
    main()
