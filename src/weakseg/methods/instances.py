"""Tell objects of one class apart, by the displacements of an IRNet (Ahn et al. 2019)."""

from weakseg.data.masks import MAX_OBJECTS
from weakseg.methods.base import Artefact, Kind, PhotoMask, PhotoTask, PhotoWork, Slot, Step
from weakseg.methods.irnet import IRNET_SLOT, open_relations
from weakseg.methods.maps import open_masks
from weakseg.methods.settings import Precision, Section


class Instances(Section):
    """The numbers are IRNet's.

    Attributes:
        precision: what IRNet computes in.
    """

    precision: Precision = "32-true"


def work(step: Step) -> PhotoWork:
    """The objects of a mask, 1 to M, each of one class."""
    from weakseg.refine.instances import instance_map, split_by_instance

    relations, masks = open_relations(step), open_masks(step["masks"])

    def compute(task: PhotoTask) -> PhotoMask:
        instances = instance_map(relations(task).displacement)
        objects, left_out = split_by_instance(masks(task), instances)
        if not left_out:
            return PhotoMask(objects)
        said = f"{task.id}: left out {left_out} objects, all but the {MAX_OBJECTS} largest"
        return PhotoMask(objects, said)

    return compute


KIND = Kind(
    name="instances",
    summary="the objects of masks, told apart by an IRNet's displacements",
    settings=Instances,
    gives=frozenset({Artefact.OBJECTS}),
    takes=(IRNET_SLOT, Slot("masks", frozenset({Artefact.MASKS}))),
    role="refiner",
    work=work,
    network=True,
)
