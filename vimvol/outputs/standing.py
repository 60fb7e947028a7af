"""How an output stands that is not complete, in words, for those who look for what is not there yet."""

from __future__ import annotations

import shlex

from vimvol.address import absolute, is_url, parse_address, without_format
from vimvol.engine.lock import is_alive, read_holder
from vimvol.errors import InputError
from vimvol.io.objects import open_objects
from vimvol.outputs.manifest import COPY, has_manifest, parse_note, read_manifest
from vimvol.stages.names import BESIDE, NOTE


def unfinished_text(address: str, what: str) -> str:
    """Return how an output, or a copy of one, stands that is not complete, and what follows, as a line.

    Parameters
    ----------
    address
        ``PATH[:DATASET]``, which need not be there or an output.
    what
        What follows of it, as a clause.

    Returns
    -------
    str
        Empty where no run and no copying has begun anything, or all of one is there.
    """
    given = absolute(parse_address(address)[0])
    out = without_format(given)
    if is_url(out) and out != given:
        return ""  # N5 or precomputed, as no output is, and open to everybody where other objects may not be
    begun = has_manifest(out)
    record = (read_manifest(out) or {}) if begun else parse_note(open_objects(out).get(COPY))
    if record and record.get("state", "complete") == "complete":  # copies of earlier versions have none
        return ""
    holder = read_holder(open_objects(f"{out}/vimvol"))
    running, tells = holder is not None and is_alive(holder) is not False, f"vimvol status {out} tells what is done"
    if "source" in record and not begun:  # else damaged
        if running:
            return f"{out} is being copied from {record['source']} ({holder}), so {what}; wait until that has ended"
        again = shlex.join(["vimvol", "export", record["source"], out])
        return f"{out} is a copy that is not finished, so {what}; {again}, with the same options, goes on with it"
    if running:
        return f"the run that writes {out} ({holder}) has not got there yet, so {what}; {tells}"
    if begun:
        return f"{out} is not finished, and no run is at it, so {what}; {tells}; vimvol segment goes on with it"
    if holder is None:
        return ""
    ended = f"the run that was to fill {out} ({holder}) has ended before it wrote anything"
    return f"{ended}, so {what}; {tells}; vimvol segment goes on with it"


def check_finished(address: str, what: str) -> None:
    """Refuse what a run has not finished, of an output as a whole, a segmentation beside that of the run, or a copy.

    Parameters
    ----------
    address
        ``PATH[:DATASET]``, which need not be there or an output.
    what
        What would become of what is missing.

    Raises
    ------
    InputError
        If a run or copying has begun it, and not ended.
    """
    if text := unfinished_text(address, what):
        raise InputError(text)
    path, dataset = parse_address(address)
    out = without_format(absolute(path))
    if is_url(out) and out != absolute(path):
        return
    labels, _, path = dataset.partition("/")
    if labels != "labels":
        return
    name = path.split("/")[0]
    note = open_objects(f"{out}/vimvol/{BESIDE}/{name}").get(NOTE)
    if note is not None and parse_note(note).get("state") != "complete":
        raise InputError(
            f"segmentation {name} of {out} is not complete, so {what}; vimvol status {out} tells how it stands"
        )
