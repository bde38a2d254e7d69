"""Photos in tar files."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from weakseg.data.check import check_dataset
from weakseg.data.dataset import load_dataset
from weakseg.data.images import photo_size, read_photo
from weakseg.data.masks import write_mask
from weakseg.errors import WeaksegError
from weakseg.files import read_bytes, stamp
from weakseg.shards import content, member_of, members


def pack(folder: Path) -> None:
    """Make a folder a tar file of its name."""
    unpacked = folder.rename(folder.with_suffix(".folder"))
    with tarfile.open(folder, "w") as tar:
        tar.add(unpacked, "some/folder")
    shutil.rmtree(unpacked)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    root = tmp_path / "shards"
    for split, number, photos in (("train", 0, "ab"), ("train", 1, "c"), ("val", 0, "d")):
        folder = root / f"{split}-{number:06}.tar"
        folder.mkdir(parents=True)
        for name in photos:
            value = ord(name)
            Image.new("RGB", (value - 90, 5), (value, 0, 0)).save(folder / f"{name}.png")
            write_mask(folder / f"{name}.mask.png", np.full((5, value - 90), 1, np.uint8))
            tags = ["cat"] if name != "b" else []
            (folder / f"{name}.json").write_text(json.dumps({"tags": tags, "id": 1}))
        pack(folder)
    return root


def test_photos_tags_and_masks_are_read_where_they_lie(shards: Path) -> None:
    dataset = load_dataset(shards)
    assert dataset.format == "webdataset"
    assert [(s.id, s.tags) for s in dataset.samples] == [
        ("a", ("cat",)),
        ("b", ()),
        ("c", ("cat",)),
        ("d", ("cat",)),
    ]
    for sample in dataset.samples:
        value = ord(sample.id)
        assert read_photo(sample.image)[0, 0].tolist() == [value, 0, 0]
        assert photo_size(sample.image) == (5, value - 90)
        assert sample.mask is not None and (sample.mask.read() == 1).all()
        assert Image.open(io.BytesIO(read_bytes(sample.image))).size == (value - 90, 5)
    report = check_dataset(shards)
    assert report.usable and not report.bad_masks and not report.unreadable


def test_shards_of_one_name_are_a_split(shards: Path) -> None:
    assert [s.id for s in load_dataset(shards, "train").samples] == ["a", "b", "c"]
    assert [s.id for s in load_dataset(shards, "val").samples] == ["d"]
    with pytest.raises(WeaksegError, match="Unknown split 'test'"):
        load_dataset(shards, "test")


def test_tags_may_be_in_a_table_beside_them(shards: Path) -> None:
    (shards / "tags.csv").write_text("image,tags\na.png,dog\nb,\n")
    dataset = load_dataset(shards)
    assert [(s.id, s.tags) for s in dataset.samples] == [("a", ("dog",)), ("b", ())]


def test_a_photo_that_nobody_tagged_is_left_out_and_counted(shards: Path) -> None:
    folder = shards / "val-000001.tar"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(folder / "x.png")
    (folder / "x.json").write_text('{"tags": null}')
    pack(folder)
    dataset = load_dataset(shards)
    assert [s.id for s in dataset.samples] == ["a", "b", "c", "d"]
    assert dataset.untagged == ("x",)


def test_a_photos_stamp_changes_with_its_shard(shards: Path) -> None:
    image = load_dataset(shards).samples[0].image
    member = member_of(image)
    assert member is not None
    size, modified = stamp(image)
    assert size == member.size == len(content(member))
    assert modified == member.tar.stat().st_mtime_ns


def test_one_key_of_two_photos_is_a_fault(shards: Path) -> None:
    (shards / "val-000001.tar").write_bytes((shards / "val-000000.tar").read_bytes())
    with pytest.raises(WeaksegError, match="an id belongs to one photo"):
        load_dataset(shards)


@pytest.mark.parametrize("text", ["[]", "{}", "no JSON", '{"tags": "cat"}', '{"tags": [1]}'])
def test_what_is_no_list_of_tags_is_named(shards: Path, text: str) -> None:
    folder = shards / "val-000002.tar"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(folder / "x.png")
    (folder / "x.json").write_text(text)
    pack(folder)
    with pytest.raises(WeaksegError, match=r"val-000002.tar, x.json can't be used"):
        load_dataset(shards)


def test_a_shard_that_was_cut_off_is_refused_and_its_photos_unreadable(shards: Path) -> None:
    shard = shards / "val-000000.tar"
    image = load_dataset(shards, "val").samples[0].image
    whole = shard.read_bytes()
    member = member_of(image)
    assert member is not None
    shard.write_bytes(whole[: member.start + 20])
    with pytest.raises(WeaksegError, match=r"val-000000\.tar can't be read as a tar file"):
        load_dataset(shards)
    with pytest.raises(WeaksegError, match="can't be read"):
        read_photo(image)


def test_links_and_other_entries_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            entry = tarfile.TarInfo("link.png")
            entry.type, entry.linkname = kind, "/etc/passwd"
            tar.addfile(entry)
        tar.addfile(tarfile.TarInfo("../../empty.png"), io.BytesIO())
    assert [file.name for file in members(path)] == ["empty.png"]
