"""Which instances of a series a peer holds, as its C-FIND at IMAGE level says (PS3.4 C.6.2.1)."""

from __future__ import annotations

from dicomnode.net.query import Level, find
from dicomnode.net.scu import Association


def instances_held(association: Association, study_instance_uid: str, series_instance_uid: str) -> frozenset[str]:
    """SOP Instance UIDs. Raises as `dicomnode.net.query.find` does."""
    keys = {
        "StudyInstanceUID": study_instance_uid,
        "SeriesInstanceUID": series_instance_uid,
        "SOPInstanceUID": "",
    }
    matches = find(association, Level.IMAGE, keys)
    return frozenset(uid for match in matches for uid in match.get("SOPInstanceUID", ()))
