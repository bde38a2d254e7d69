import gc
import os
import tracemalloc
import unicodedata
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from weakseg.data.check import check_dataset
from weakseg.data.dataset import Dataset, load_dataset
from weakseg.data.masks import MaskFile, write_classes, write_mask
from weakseg.errors import WeaksegError

VOC2012 = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "VOC2012"


class Folder(Protocol):
    def __call__(self, names: list[str], *content: object) -> Path: ...


def tags(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {sample.id: sample.tags for sample in dataset.samples}


def annotation(*names: str) -> str:
    objects = "".join(
        f"<object><name>{name}</name><part><name>head</name></part></object>" for name in names
    )
    return f"<annotation><filename>x.jpg</filename>{objects}</annotation>"


def test_tagged_folder(tagged_folder: Folder) -> None:
    root = tagged_folder(["b.png", "a.jpg"], "image,tags\nb,dog\na.jpg,dog cat\n")
    write_mask(root / "masks" / "a.png", np.zeros((3, 4), np.uint8))
    dataset = load_dataset(root)
    assert (dataset.root, dataset.format) == (root, "tagged-folder")
    assert dataset.classes == ("cat", "dog")
    a, b = dataset.samples
    assert (a.id, a.image, a.tags) == ("a", root / "images" / "a.jpg", ("cat", "dog"))
    assert (b.id, b.image, b.tags) == ("b", root / "images" / "b.png", ("dog",))
    assert (a.mask, b.mask) == (MaskFile.of(root / "masks" / "a.png"), None)
    assert (dataset.untagged, dataset.missing) == ((), ())


@pytest.mark.parametrize(
    ("name", "cell", "id_"),
    [
        ("007.jpg", "007", "007"),
        ("007.jpg", "007.jpg", "007"),
        ("007.JPG", "007.jpg", "007"),
        ("007.png", "007.jpg", "007"),
        ("2007_000032.jpg", "2007_000032", "2007_000032"),
        ("v1.2.jpg", "v1.2", "v1.2"),
        ("v1.2.jpg", "v1.2.jpg", "v1.2"),
        ("a.png.jpg", "a.png", "a.png"),
        ("my photo.jpg", "my photo", "my photo"),
        ("größe-猫🐈.jpg", "größe-猫🐈", "größe-猫🐈"),
        (unicodedata.normalize("NFD", "größe.jpg"), "größe", "größe"),
        ("größe.jpg", unicodedata.normalize("NFD", "größe.jpg"), "größe"),
        ("-rf.jpg", "-rf", "-rf"),
    ],
)
def test_ids(tagged_folder: Folder, name: str, cell: str, id_: str) -> None:
    dataset = load_dataset(tagged_folder([name], f"image,tags\n{cell},cat\n"))
    assert [(s.id, s.image.name) for s in dataset.samples] == [(id_, name)]
    assert dataset.missing == ()


def test_a_full_file_name_goes_before_an_id(tagged_folder: Folder) -> None:
    root = tagged_folder(["a.png", "a.png.jpg"], "image,tags\na.png,cat\na.png.jpg,dog\n")
    assert tags(load_dataset(root)) == {"a": ("cat",), "a.png": ("dog",)}


def test_what_is_left_out_is_counted(tagged_folder: Folder) -> None:
    root = tagged_folder(
        ["1.jpg", "2.jpg", "3.jpg"], "image,tags\n1,cat\n2,\n9,dog\n", {"images/notes.txt": "-"}
    )
    dataset = load_dataset(root)
    assert tags(dataset) == {"1": ("cat",), "2": ()}
    assert dataset.untagged == ("3",)
    assert dataset.missing == ("9",)
    assert dataset.classes == ("cat", "dog")


def test_several_rows_add_up(tagged_folder: Folder) -> None:
    root = tagged_folder(["1.jpg", "2.jpg"], "image,tags\n1,dog\n1.jpg,cat dog\n1,\n2,cat cat\n")
    assert tags(load_dataset(root)) == {"1": ("cat", "dog"), "2": ("cat",)}


def test_declared_classes_set_ids_and_the_order_of_tags(tagged_folder: Folder) -> None:
    root = tagged_folder(
        ["1.jpg"],
        "image,tags\n1,ant;zoo bus\n",
        {"classes.txt": "\ufeffzoo bus\r\n\r\nowl\r\nant\r\n"},
    )
    dataset = load_dataset(root)
    assert dataset.classes == ("zoo bus", "owl", "ant")
    assert dataset.samples[0].tags == ("zoo bus", "ant")


def test_split_keeps_its_order(tagged_folder: Folder) -> None:
    root = tagged_folder(
        ["1.jpg", "2.jpg", "3.jpg", "4.jpg"],
        "image,tags\n1,cat\n2,dog\n3,cow\n",
        {"splits/train.txt": "3\n1.jpg\n\n3\n4\n8\n", "splits/val.txt": "2\n"},
    )
    train, val = (load_dataset(root, split) for split in ("train", "val"))
    assert [s.id for s in train.samples] == ["3", "1"]
    assert (train.untagged, train.missing) == (("4",), ("8",))
    assert [s.id for s in val.samples] == ["2"]
    assert train.classes == val.classes == ("cat", "cow", "dog")


@pytest.mark.parametrize("split", ["trian", "../images/1", "train.txt"])
def test_unknown_split(tagged_folder: Folder, split: str) -> None:
    root = tagged_folder(["1.jpg"], "image,tags\n1,cat\n", {"splits/train.txt": "1\n"})
    with pytest.raises(WeaksegError, match=r"Unknown split .* Known: all, train"):
        load_dataset(root, split)


def test_a_split_of_a_folder_without_splits(tagged_folder: Folder) -> None:
    root = tagged_folder(["1.jpg"], "image,tags\n1,cat\n")
    with pytest.raises(WeaksegError, match=r"no split 'train'.*data\.split=all"):
        load_dataset(root, "train")


def test_photos_that_nobody_tagged_are_there_where_tags_do_not_matter(
    tagged_folder: Folder,
) -> None:
    root = tagged_folder(
        ["1.jpg", "2.jpg", "3.jpg"], "image,tags\n1,cat\n", {"splits/val.txt": "3\n2\n"}
    )
    write_mask(root / "masks" / "2.png", np.zeros((3, 4), np.uint8))
    dataset = load_dataset(root, "val", untagged=True)
    assert tags(dataset) == {"3": (), "2": ()}
    assert [s.mask for s in dataset.samples] == [None, MaskFile.of(root / "masks" / "2.png")]
    assert dataset.untagged == ("3", "2")
    with pytest.raises(WeaksegError, match="none of its 2 images is a photo that is tagged"):
        load_dataset(root, "val")


def test_voc_tags_from_annotations(voc_folder: Folder) -> None:
    root = voc_folder(
        ["2007_000032", "2007_000033", "2007_000039"],
        {
            "Annotations/2007_000032.xml": annotation("person", "aeroplane", "person"),
            "Annotations/2007_000033.xml": annotation(),
            "ImageSets/Segmentation/train.txt": "2007_000033\n2007_000032\n2007_000039\n",
        },
    )
    for folder in ("SegmentationClass", "SegmentationObject"):
        write_mask(root / folder / "2007_000032.png", np.zeros((3, 4), np.uint8))
    dataset = load_dataset(root, "train")
    assert dataset.format == "voc"
    assert len(dataset.classes) == 20
    assert tags(dataset) == {"2007_000033": (), "2007_000032": ("aeroplane", "person")}
    assert dataset.untagged == ("2007_000039",)
    assert dataset.samples[1].mask == MaskFile.of(root / "SegmentationClass" / "2007_000032.png")
    assert dataset.samples[1].objects == MaskFile.of(
        root / "SegmentationObject" / "2007_000032.png"
    )
    assert dataset.samples[0].objects is None


def test_voc_prefers_tags_csv_and_augmented_masks(voc_folder: Folder) -> None:
    root = voc_folder(
        ["1"], {"tags.csv": "image,tags\n1,cat\n", "Annotations/1.xml": annotation("dog")}
    )
    for folder in ("SegmentationClass", "SegmentationClassAug"):
        write_mask(root / folder / "1.png", np.zeros((3, 4), np.uint8))
    (sample,) = load_dataset(root).samples
    assert sample.tags == ("cat",)
    assert sample.mask == MaskFile.of(root / "SegmentationClassAug" / "1.png")


def test_voc_layout_with_other_classes(voc_folder: Folder) -> None:
    root = voc_folder(["1"], {"tags.csv": "image,tags\n1,owl\n", "classes.txt": "owl\ncar\n"})
    assert load_dataset(root).classes == ("owl", "car")


def masked(dataset: Dataset) -> list[str]:
    return [s.mask.path.name for s in dataset.samples if isinstance(s.mask, MaskFile)]


def test_masks_are_png_or_tiff_and_may_be_called_so(tagged_folder: Folder) -> None:
    rows = "".join(f"{i},cat\n" for i in ("a", "b", "c", "d", "e_mask", "f"))
    root = tagged_folder(
        ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e_mask.jpg", "f.jpg"],
        f"image,tags\n{rows}",
        {"masks/classes.txt": "0\tbackground\n"},
    )
    names = ["a.tif", "b.png", "b.tiff", "b_mask.png", "c_Mask.PNG", "d.jpg", "e_mask.png"]
    for name in (*names, "f.npy", "nobody.png", "e_mask.png.bak"):
        (root / "masks" / name).touch()
    dataset = load_dataset(root)
    assert masked(dataset) == ["a.tif", "b.png", "c_Mask.PNG", "e_mask.png"]
    assert dataset.notes == (
        "masks/ has 1 files .jpg that are not read: masks are PNG or TIFF, as JPEG changes ids.",
        "masks/ has 1 files .npy that are not read: masks are PNG or TIFF, as JPEG changes ids.",
        "masks/ has 1 masks of no photo, such as 'nobody.png'.",
    )
    assert check_dataset(root).notes == dataset.notes


def test_masks_of_labelme(voc_folder: Folder) -> None:
    names = "__ignore__\n_background_\nowl\ncar\n"
    root = voc_folder(["1"], {"tags.csv": "image,tags\n1,owl\n", "class_names.txt": names})
    for folder in ("SegmentationClassPNG", "SegmentationObjectPNG"):
        write_mask(root / folder / "1.png", np.zeros((3, 4), np.uint8))
    dataset = load_dataset(root)
    (sample,) = dataset.samples
    assert dataset.classes == ("owl", "car")
    assert sample.mask == MaskFile.of(root / "SegmentationClassPNG" / "1.png")
    assert sample.objects == MaskFile.of(root / "SegmentationObjectPNG" / "1.png")
    (root / "classes.txt").write_text("car\nowl\n")
    dataset = load_dataset(root)
    assert dataset.samples[0].mask is None
    assert dataset.notes == (
        "SegmentationClassPNG/ is not read: its ids are numbered by class_names.txt, whose 2 names"
        " are not the 2 of classes.txt.",
    )


def test_classes_may_be_numbered_as_beside_masks(tagged_folder: Folder) -> None:
    root = tagged_folder(["1.jpg"], "image,tags\n1,ant\n")
    write_classes(root, ["zoo bus", "ant"])
    assert load_dataset(root).classes == ("zoo bus", "ant")
    (root / "classes.txt").write_text("1\tant\n3\tbus\n")
    with pytest.raises(WeaksegError, match=r"its ids are not 1, 2, 3, \.\.\. Write the names"):
        load_dataset(root)


@pytest.mark.parametrize(
    "xml",
    [
        '<!DOCTYPE a [<!ENTITY x "cat">]><annotation>&x;</annotation>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation/>',
        '<!DOCTYPE a [<!ENTITY % x SYSTEM "file:///etc/passwd"> %x;]><annotation/>',
        '<!DOCTYPE a SYSTEM "a.dtd"><annotation><object><name>c&x;t</name></object></annotation>',
        "<!DOCTYPE a [<!ENTITY x 'y'><!ENTITY z '&x;&x;&x;'>]><annotation>&z;</annotation>",
        "<html><body/></html>",
        "<annotation><item><name>cat</name><bndbox/></item></annotation>",
        "<annotation><Object><bndbox/></Object></annotation>",
        '<?xml version="1.0" encoding="gb2312"?><annotation>\udcff</annotation>',
        "<annotation>",
        "",
        '<?xml version="1.0" encoding="nonsense"?><annotation/>',
        "<annotation><object><name> </name></object></annotation>",
        "<annotation><object/></annotation>" * 2,
        # What it takes to look at all of each one's inner elements grows with the square.
        f"<annotation>{'<object><name>a</name>' * 100_000}{'</object>' * 100_000}</annotation>",
    ],
)
def test_annotations_that_cannot_be_used(voc_folder: Folder, xml: str) -> None:
    root = voc_folder(["1"], {"Annotations/1.xml": ""})
    (root / "Annotations" / "1.xml").write_bytes(xml.encode(errors="surrogateescape"))
    with pytest.raises(WeaksegError, match=r"Annotations/1\.xml can't be read: .* Mend") as caught:
        load_dataset(root)
    assert "\n" not in str(caught.value)


CAT = "<{0}><name>cat</name><bndbox/><part><name>head</name><bndbox/></part></{0}>"


@pytest.mark.parametrize(
    "xml",
    [
        f"<annotation>{CAT.format('object')}</annotation>",
        f"<Annotation>{CAT.format('Object')}</Annotation>",
        "<annotation><OBJECT><NAME>cat</NAME><BNDBOX/></OBJECT></annotation>",
        f"<annotation><objects>{CAT.format('object')}</objects></annotation>",
        f"<annotation>{CAT.format('objects')}</annotation>",
        f"<annotations><annotation>{CAT.format('object')}</annotation></annotations>",
        f"<annotation><owner><name>Ann</name></owner>{CAT.format('object')}</annotation>",
        f'<!DOCTYPE annotation SYSTEM "a.dtd"><annotation>{CAT.format("object")}</annotation>',
        f"<!DOCTYPE annotation><annotation>{CAT.format('object')}</annotation>",
        f"<!DOCTYPE a [<!ELEMENT annotation ANY>]><annotation>{CAT.format('object')}</annotation>",
    ],
)
def test_objects_are_found_however_they_are_written(voc_folder: Folder, xml: str) -> None:
    (sample,) = load_dataset(voc_folder(["1"], {"Annotations/1.xml": xml})).samples
    assert sample.tags == ("cat",)


@pytest.mark.parametrize("encoding", ["gb2312", "GBK", "gb18030", "utf-8", "utf-16", "latin-1"])
def test_annotations_in_other_encodings(voc_folder: Folder, encoding: str) -> None:
    name = "猫" if encoding != "latin-1" else "größe"
    xml = f'<?xml version="1.0" encoding="{encoding}"?>' + annotation(name)
    root = voc_folder(["1"], {"Annotations/1.xml": "", "classes.txt": f"{name}\n"})
    (root / "Annotations" / "1.xml").write_bytes(xml.encode(encoding))
    (sample,) = load_dataset(root).samples
    assert sample.tags == (name,)


def test_voc_without_any_tags(voc_folder: Folder) -> None:
    with pytest.raises(WeaksegError, match=r"has no tags. Add tags\.csv or Annotations"):
        load_dataset(voc_folder(["1"], {}))


@pytest.mark.parametrize(
    ("names", "tags_csv", "texts", "message"),
    [
        (
            ["1.jpg"],
            "image,tags\n",
            {},
            "nothing to learn from in split 'all': none of its 1 images is a photo that is tagged",
        ),
        (["1.jpg"], "image,tags\n1,\n", {}, "none of the 1 photos that are tagged has a tag"),
        (["1.jpg"], "image,tags\n1,\n", {"classes.txt": "cat\n"}, "that are tagged has a tag"),
        (["1.jpg"], "image,tags\n2,cat\n", {}, "of 1 images such as '2', .* are 1 such as '1'"),
        ([], "image,tags\n", {}, "there are no photos. Add some"),
        ([], "image,tags\n1,cat\n", {"images/1.heic": "-"}, "convert .*: 1 with suffix '.heic'"),
        (["1.jpg", "1.png"], "image,tags\n1,cat\n", {}, "both '1.jpg' and '1.png'"),
        (["1.jpg"], "image,tags\n1/..,cat\n", {}, r"tags\.csv line 2 names '\.\.', which is a p"),
        (["1.jpg"], "image,tags\n1,background\n", {}, "'background' is among the classes"),
        (["1.jpg"], "image,tags\n1,cat\n", {"classes.txt": "cat\ncat\n"}, "listed 2 times"),
        (["1.jpg"], "image,tags\n1,a\n", {"classes.txt": "a\n\x1b[2J\n"}, "control characters"),
        (
            ["1.jpg"],
            "image,tags\n1," + " ".join(f"t{i}" for i in range(255)),
            {},
            "There are 255 classes, where a mask has room for 254",
        ),
        (
            ["1.jpg", "2.jpg", "3.jpg"],
            "image,tags\n1,cat\n2.jpg,dog owll\n3,owll\n",
            {"classes.txt": "cat\ndog\nowl\n"},
            r"tags\.csv line 3 \(image '2\.jpg'\) and 1 more rows: Unknown tag 'owll'\. "
            r"Did you mean 'owl'\? Known: cat, dog, owl\. Correct the row",
        ),
        (
            ["1.jpg"],
            "image,tags\n..,cat\n.,cat\n1,cat,dog\n",
            {},
            r"line 4 has 3 cells.* 2 more: see `weakseg data check`",
        ),
    ],
)
def test_errors(
    tagged_folder: Folder, names: list[str], tags_csv: str, texts: dict[str, str], message: str
) -> None:
    with pytest.raises(WeaksegError, match=message) as caught:
        load_dataset(tagged_folder(names, tags_csv, texts))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ["..", "a/..", "a/", "\0"])
def test_split_line_that_names_no_photo(tagged_folder: Folder, line: str) -> None:
    root = tagged_folder(["1.jpg"], "image,tags\n1,cat\n", {"splits/train.txt": f"1\n{line}\n"})
    with pytest.raises(WeaksegError, match=r"train\.txt line 2 names"):
        load_dataset(root, "train")
    assert tags(load_dataset(root)) == {"1": ("cat",)}


def test_missing_tags_csv(tagged_folder: Folder) -> None:
    root = tagged_folder(["1.jpg"], "")
    (root / "tags.csv").unlink()
    with pytest.raises(WeaksegError, match=r"There is no .*tags\.csv. Write one, with a row"):
        load_dataset(root)


def test_file_names_that_are_no_utf_8(tagged_folder: Folder) -> None:
    root = tagged_folder(["1.jpg"], "image,tags\n1,cat\n")
    (root / "images" / "1.jpg").rename(root / "images" / os.fsdecode(b"gr\xf6sse.jpg"))
    with pytest.raises(WeaksegError, match="is no UTF-8; rename the photo") as caught:
        load_dataset(root)
    str(caught.value).encode()


def test_hidden_files_folders_and_pipes_are_no_photos(tagged_folder: Folder) -> None:
    root = tagged_folder(["1.jpg"], "image,tags\n1,cat\n")
    (root / "images" / "._1.jpg").write_bytes(b"")
    (root / "images" / "folder.jpg").mkdir()
    os.mkfifo(root / "images" / "pipe.jpg")
    dataset = load_dataset(root)
    assert [s.id for s in dataset.samples] == ["1"]
    assert dataset.untagged == ()


def test_no_photo_is_opened(tagged_folder: Folder) -> None:
    root = tagged_folder(["1.jpg"], "image,tags\n1,cat\n")
    (root / "images" / "1.jpg").write_bytes(b"")
    assert tags(load_dataset(root)) == {"1": ("cat",)}


@pytest.mark.realdata
@pytest.mark.skipif(not VOC2012.is_dir(), reason="needs ../shared/data/VOC2012")
def test_voc_2012() -> None:
    train, val, everything = (load_dataset(VOC2012, split) for split in ("train", "val", "all"))
    assert (len(train.samples), len(val.samples), len(everything.samples)) == (734, 357, 1091)
    assert len(train.classes) == 20
    assert (train.untagged, train.missing) == ((), ())
    agree = 0
    for sample in everything.samples:
        assert sample.mask is not None
        present = np.flatnonzero(np.bincount(sample.mask.read().ravel(), minlength=256)[:255])
        agree += sample.tags == tuple(train.classes[i - 1] for i in present if i)
    assert agree >= 0.98 * len(everything.samples)


def test_a_photo_takes_few_bytes(tmp_path: Path) -> None:
    def kept_and_peak(count: int) -> tuple[int, int]:
        root = tmp_path / str(count)
        for name in ("images", "masks"):
            (root / name).mkdir(parents=True)
        for number in range(count):
            (root / "images" / f"{number:06}.jpg").touch()
            (root / "masks" / f"{number:06}.png").touch()
        rows = (f"{number:06}.jpg,{'cat;dog' if number % 2 else 'dog'}" for number in range(count))
        (root / "tags.csv").write_text("\n".join(("image,tags", *rows)))
        gc.collect()
        tracemalloc.start()
        dataset = load_dataset(root)
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(dataset.samples) == count
        return kept, peak

    kept_and_peak(1)  # what is imported and compiled on the way
    few, many = kept_and_peak(500), kept_and_peak(2500)
    kept, peak = ((more - less) / 2000 for less, more in zip(few, many, strict=True))
    assert kept < 320 and peak < 480
