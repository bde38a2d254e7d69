"""What is exported, where to, and what is refused; a format from outside the package."""

import os
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import label

import weakseg
from handmade import CLASSES, PHOTOS, Made
from tiny import IRN, Lines, tiny_values
from weakseg import cli
from weakseg.data.masks import read_mask, write_mask
from weakseg.engine.executor import InProcessExecutor, LocalExecutor
from weakseg.engine.record import read_record, write_record
from weakseg.errors import WeaksegError
from weakseg.export import EXPORTERS
from weakseg.export.base import Exporter, Job, Masked
from weakseg.export.choose import Choice
from weakseg.export.pictures import put
from weakseg.export.place import whole_folder
from weakseg.export.write import export
from weakseg.files import read_json
from weakseg.recipe import check_recipe, dump_recipe

ALL = sorted(name.rpartition(".")[0] for name in PHOTOS)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def masks(out: Path) -> list[str]:
    return sorted(path.stem for path in (out / "SegmentationClass").iterdir())


def test_accepted_masks_take_the_place_of_the_steps(made: Made, tmp_path: Path) -> None:
    mended = np.full(made.mask("grey").shape, 2, np.uint8)
    made.accept("grey", mended)
    out = made.export("voc", tmp_path / "all")
    assert masks(out) == ALL
    assert np.array_equal(read_mask(out / "SegmentationClass" / "grey.png"), mended)
    assert masks(made.export("voc", tmp_path / "some", Choice(accepted=True))) == ["grey"]


def test_a_bound_on_confidence_lets_through_what_was_accepted(made: Made, tmp_path: Path) -> None:
    made.trust("given", plain=0.9, grey=0.6, turned=0.59, deep=0.1)
    made.accept("deep", made.mask("deep"))
    out = made.export("voc", tmp_path / "out", Choice(confidence=0.6))
    assert masks(out) == ["deep", "grey", "plain"]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            Choice(accepted=True),
            "Of 10 masks of given in .* none is to be exported; 0 are accepted",
        ),
        (Choice(confidence=0.5), r"confidence\.json is of the masks of other, .*--step\."),
        (Choice(step="gven"), "Unknown step 'gven'. Did you mean 'given'"),
    ],
)
def test_choices_that_leave_nothing(
    made: Made, tmp_path: Path, choice: Choice, message: str
) -> None:
    made.trust("other", plain=0.9)
    with pytest.raises(WeaksegError, match=message):
        made.export("voc", tmp_path / "out", choice)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".partial*"))


def test_without_confidence_there_is_no_bound(made: Made, tmp_path: Path) -> None:
    with pytest.raises(WeaksegError, match=r"confidence\.json is not there"):
        made.export("voc", tmp_path / "out", Choice(confidence=0.5))


def test_photos_without_masks_are_counted(made: Made, tmp_path: Path) -> None:
    for name in ("grey", "plain"):
        (made.run.folder / "given" / f"{name}.png").unlink()
    (made.run.folder / "given" / "plain.safetensors").touch()  # its mask is still to come
    (made.run.folder / "given" / ".partial-0.png").touch()
    assert len(masks(made.export("voc", tmp_path / "out"))) == len(ALL) - 2
    assert made.said == ["2 photos of the run have no mask of given, and are left out"]


def remove_photo(made: Made) -> None:
    made.run.files["plain"].unlink()


def turn_mask(made: Made) -> None:
    write_mask(made.run.folder / "given" / "plain.png", made.mask("plain").T.copy())


def cut_mask(made: Made) -> None:
    path = made.run.folder / "given" / "turned.png"
    path.write_bytes(path.read_bytes()[:-30])


def strange_mask(made: Made) -> None:
    write_mask(made.run.folder / "given" / "plain.png", made.mask("plain") + np.uint8(4))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_photo, "1 of 10 photos of .* are no longer in .*, the first with the ID 'plain'"),
        (turn_mask, r"plain\.png has height and width \(20, 24\), its photo \(24, 20\)"),
        (cut_mask, r"turned\.png can't be read"),
        (strange_mask, "where there are 3 classes. The same `weakseg run` again"),
    ],
)
@pytest.mark.parametrize("name", ["coco", "webdataset"])
def test_an_export_is_whole_or_absent(
    made: Made, tmp_path: Path, name: str, spoil: Callable[[Made], None], message: str
) -> None:
    out = made.export(name, tmp_path / "out")
    before = files(out)
    spoil(made)
    made.run.__dict__.pop("files", None)  # as another process would see them
    with pytest.raises(WeaksegError, match=message):
        made.export(name, out)
    assert files(out) == before
    assert not list(tmp_path.glob(".partial*"))


def test_an_export_is_replaced_unless_somebody_changed_it(made: Made, tmp_path: Path) -> None:
    out = made.export("voc", tmp_path / "out")
    made.accept("grey", np.zeros_like(made.mask("grey")))
    made.export("voc", out)
    assert not read_mask(out / "SegmentationClass" / "grey.png").any()
    mended = out / "SegmentationClass" / "grey.png"
    later = (out / "weakseg-export.json").stat().st_mtime_ns + 1_000_000
    os.utime(mended, ns=(later, later))
    with pytest.raises(WeaksegError, match=r"changed since, such as SegmentationClass/grey\.png"):
        made.export("voc", out)
    mended.unlink()
    with pytest.raises(WeaksegError, match="changed since, or has more or fewer files"):
        made.export("voc", out)


def test_a_folder_of_somebody_else_is_left_alone(made: Made, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    made.export("voc", tmp_path / "empty")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("dear")
    with pytest.raises(WeaksegError, match=r"own exists and is no export"):
        made.export("voc", tmp_path / "own")
    assert (tmp_path / "own" / "thesis.txt").read_text() == "dear"


def test_a_folder_of_somebody_else_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear")
    read = []

    def digest() -> str:
        read.append("photos")
        return "digest"

    with pytest.raises(WeaksegError, match="is no export"), whole_folder(tmp_path, {}, digest):
        pass
    assert not read
    with whole_folder(tmp_path / "free", {}, digest):
        assert read == ["photos"]


@pytest.mark.parametrize("name", [name for name, one in EXPORTERS.items() if not one.file])
def test_the_same_bytes_each_time(made: Made, tmp_path: Path, name: str) -> None:
    if name == "huggingface":
        pytest.importorskip("pyarrow")
    once, again = (files(made.export(name, tmp_path / place)) for place in ("one", "two"))
    assert once == again and read_json(tmp_path / "one" / "weakseg-export.json")["format"] == name


@pytest.mark.parametrize("name", ["coco", "webdataset"])
def test_the_same_bytes_with_any_number_of_workers(made: Made, tmp_path: Path, name: str) -> None:
    expected = files(made.export(name, tmp_path / "one"))
    with LocalExecutor(2) as executor:
        out = export(made.run, EXPORTERS[name], tmp_path / "two", Choice(), executor, Lines())
    assert files(out) == expected


class Stopping(Lines):
    """A progress whose user ends the command at some photo."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.left = last

    def track(
        self, name: str, total: int, done: int = 0
    ) -> AbstractContextManager[Callable[[int], None]]:
        super().track(name, total, done)
        return nullcontext(self.advance)

    def advance(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["webdataset", "huggingface"])
def test_shards_that_are_whole_are_gone_on_from(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "huggingface":
        pytest.importorskip("pyarrow")
    monkeypatch.setattr("weakseg.export.base._SHARD", 1)  # one photo is more
    expected = files(made.export(name, tmp_path / "whole"))
    shards = [file for file in expected if file.endswith((".tar", ".parquet"))]
    assert len(shards) == len(ALL)
    out = tmp_path / "out"

    def stopped(after: int) -> Path:
        with pytest.raises(KeyboardInterrupt):
            export(made.run, EXPORTERS[name], out, Choice(), InProcessExecutor(), Stopping(after))
        assert not out.exists()
        (unfinished,) = tmp_path.glob(".partial-out-*")
        assert sorted(files(unfinished)) == sorted(shards[:after])
        return unfinished

    unfinished = stopped(2)
    left = (unfinished / shards[0]).with_name(f".partial-1{Path(shards[0]).suffix}")
    left.write_bytes(b"of a kill")
    before = (unfinished / shards[0]).stat()
    lines = Lines()
    export(made.run, EXPORTERS[name], out, Choice(), InProcessExecutor(), lines)
    assert files(out) == expected
    assert os.path.samestat((out / shards[0]).stat(), before)
    assert lines.said == [f"export: 2 of {len(ALL)} done before"]
    assert not list(tmp_path.glob(".partial*"))


def test_shards_of_other_masks_are_not_gone_on_from(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weakseg.export.base._SHARD", 1)
    out, executor = tmp_path / "out", InProcessExecutor()
    with pytest.raises(KeyboardInterrupt):
        export(made.run, EXPORTERS["webdataset"], out, Choice(), executor, Stopping(3))
    made.accept(ALL[0], np.zeros_like(made.mask(ALL[0])))
    lines = Lines()
    export(made.run, EXPORTERS["webdataset"], out, Choice(), executor, lines)
    assert lines.said == [f"export: 0 of {len(ALL)} done before"]
    assert files(out) == files(made.export("webdataset", tmp_path / "whole"))
    assert not list(tmp_path.glob(".partial*"))


def test_a_class_that_cvat_cannot_write(made: Made, tmp_path: Path) -> None:
    record = read_record(made.run.folder)
    record.data["classes"] = ["a:b", *CLASSES[1:]]
    write_record(made.run.folder, record)
    made.run.__dict__.pop("record", None)
    with pytest.raises(WeaksegError, match="no way to write the class 'a:b'"):
        made.export("cvat", tmp_path / "out")


def list_shares(job: Job, folder: Path) -> None:
    """How much of each photo is of a class."""
    lines = [f"{photo.id}\t{share:.3f}\n" for photo, share in job.map(share_of)]
    put(folder / "shares.tsv", "".join(lines).encode())


def share_of(masked: Masked) -> float:
    return float(np.isin(masked.ids, range(1, 4)).mean())


SHARES = Exporter("shares", "how much of each photo is of a class", list_shares)


def name_classes(job: Job, folder: Path) -> None:
    """Needs no photo."""
    put(folder / "names.txt", "\n".join(job.run.classes).encode())


NAMES = Exporter("names", "the classes alone", name_classes)


def spell_classes(job: Job, file: Path) -> None:
    put(file, "\n".join(job.run.classes).encode())
    if job.step:
        raise WeaksegError(f"{job.step} has no classes of its own.")


SPELLED = Exporter("spelled", "the classes in one file", spell_classes, file="classes.txt")


def command(*arguments: object) -> int:
    """The real command line, in this process: formats from elsewhere are known here alone."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr("sys.argv", ["weakseg", *map(str, arguments)])
        cli.main()
    return int(end.value.code or 0)


def test_a_format_from_elsewhere(
    made: Made,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for exporter in (SHARES, NAMES):
        monkeypatch.setitem(EXPORTERS, exporter.name, exporter)
    assert command("list", "exports") == 0
    assert "shares         how much of each photo is of a class\n" in capsys.readouterr().out
    assert command("export", made.run.folder, "--format", "shars") == cli.USER_ERROR
    assert "Did you mean 'shares'?" in capsys.readouterr().err
    run = made.run.folder
    for name in ALL[:3]:  # few enough to stay in this process, where the format is known
        made.accept(name, made.mask(name))
    assert command("export", run, "--format", "shares", "--accepted") == 0
    out = run / "export" / "shares"
    assert capsys.readouterr().out == f"{out}\n"
    lines = (out / "shares.tsv").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[0] for line in lines] == ALL[:3] and "0.000" not in lines[0]
    for path in (run / "given").iterdir():
        path.unlink()
    assert command("export", run, "--format", "names", "--out", tmp_path / "names") == 0
    assert (tmp_path / "names" / "names.txt").read_text(encoding="utf-8") == "\n".join(CLASSES)


def test_a_format_of_one_file(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPORTERS, "spelled", SPELLED)
    out = made.export("spelled")
    assert out == made.run.folder / "export" / "classes.txt"
    assert out.read_text(encoding="utf-8") == "\n".join(CLASSES)
    for choice, message in (
        (Choice(step="given"), "given has no classes of its own"),
        (Choice(accepted=True), "spelled has no photos to choose"),
        (Choice(confidence=0.5), "Leave out --accepted and --confidence"),
    ):
        other = out.with_name("other.txt")
        with pytest.raises(WeaksegError, match=message):
            made.export("spelled", other, choice)
        assert [path.name for path in out.parent.iterdir()] == ["classes.txt"]


def test_of_a_run_the_command_line_exports_what_it_is_asked_for(
    finished: Path, tmp_path: Path
) -> None:
    run = weakseg.open_run(finished)
    assert command("export", finished, "--format", "voc", "--step", "cam", "--out", tmp_path) == 0
    for name in run.photos("cam"):
        exported = read_mask(tmp_path / "SegmentationClass" / f"{name}.png")
        assert np.array_equal(exported, run.mask(name, "cam"))
    for more, message in (
        (("--step", "localize"), "localize makes no masks"),
        (("--format", "coca"), "Did you mean 'coco'?"),
    ):
        arguments = ["export", finished, "--out", tmp_path / "other", "--format", "coco", *more]
        assert command(*arguments) == cli.USER_ERROR, message


def test_objects_are_told_apart_where_a_run_does(made: Made, tmp_path: Path) -> None:
    steps = tiny_values(**IRN, objects={"kind": "instances", "of": ["irnet", "irn"]})
    (made.run.folder / "recipe.yaml").write_text(dump_recipe(check_recipe(steps, "objects")))
    expected = {}
    for name in ALL:
        mask = made.mask(name) if name != "nothing" else np.zeros_like(made.mask(name))
        objects = label(made.certain(name) > 0)[0].astype(np.uint8)
        write_mask(made.run.folder / "irn" / f"{name}.png", mask)
        write_mask(made.run.folder / "objects" / f"{name}.png", objects)
        pairs = np.stack([made.certain(name), objects])[:, made.certain(name) > 0].T
        expected[name] = len(np.unique(pairs, axis=0))
    made.accept("grey", made.mask("grey"))
    expected["grey"] = len(np.setdiff1d(made.mask("grey"), (0, 255)))
    of_objects = Made(weakseg.open_run(made.run.folder), [])
    out = of_objects.export("coco", tmp_path / "coco", Choice(step="irn"))
    content = read_json(out / "annotations" / "instances_train.json")
    names = {image["id"]: Path(image["file_name"]).stem for image in content["images"]}
    counted = Counter(names[one["image_id"]] for one in content["annotations"])
    assert counted == Counter(expected) and counted["plain"] > len(CLASSES)
    out = of_objects.export("coco-panoptic", tmp_path / "panoptic", Choice(step="irn"))
    categories = read_json(out / "annotations" / "panoptic_train.json")["categories"]
    assert [category["isthing"] for category in categories] == [1, 1, 1, 0]
    out = of_objects.export("voc", tmp_path / "voc", Choice(step="irn"))
    found = {path.stem for path in (out / "SegmentationObject").iterdir()}
    assert found == set(ALL) - {"grey"}
