"""How an output stands that is not complete, in words, for those who look for what is not there yet."""

from __future__ import annotations

from vimvol.address import absolute, is_url, parse_address, without_format
from vimvol.engine.lock import is_alive, read_holder
from vimvol.errors import InputError
from vimvol.io.objects import open_objects
from vimvol.outputs.manifest import has_manifest, parse_note, read_manifest


def unfinished_text(out: str) -> str:
    """Return how far an output is that is not complete, as a clause, and whether a run is at it.

    Parameters
    ----------
    out
        Path or URL.

    Returns
    -------
    str
        Empty where no run has begun anything, or all of one is there.
    """
    begun = has_manifest(out)
    if begun and (read_manifest(out) or {}).get("state") == "complete":
        return ""
    holder = read_holder(open_objects(f"{out}/vimvol"))
    if holder is not None and is_alive(holder) is not False:
        return f"the run that writes {out} ({holder}) has not got there yet"
    if begun:
        return f"{out} is not finished, and no run is at it"
    return "" if holder is None else f"the run that was to fill {out} ({holder}) has ended before it wrote anything"


def check_finished(address: str, what: str) -> None:
    """Refuse what a run has not finished, of an output as a whole or a segmentation beside that of the run.

    Parameters
    ----------
    address
        ``PATH[:DATASET]``, which need not be there or an output.
    what
        What would become of what is missing.

    Raises
    ------
    InputError
        If a run has begun it, and not ended.
    """
    path, dataset = parse_address(address)
    out = without_format(absolute(path))
    if is_url(out) and out != absolute(path):
        return  # N5 or precomputed, as no output is, and open to everybody where other objects may not be
    if text := unfinished_text(out):
        again = "" if "has not got there" in text else "; vimvol segment goes on with it"
        raise InputError(f"{text}, so {what}; vimvol status {out} tells what is done{again}")
    labels, _, path = dataset.partition("/")
    if labels != "labels":
        return
    from vimvol.stages.job import BESIDE, NOTE  # loads what the viewer does not need

    name = path.split("/")[0]
    note = open_objects(f"{out}/vimvol/{BESIDE}/{name}").get(NOTE)
    if note is not None and parse_note(note).get("state") != "complete":
        raise InputError(
            f"segmentation {name} of {out} is not complete, so {what}; vimvol status {out} tells how it stands"
        )
