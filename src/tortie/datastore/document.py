"""Writing back a document of which only some fields are typed: what did not change stays as it was.

Three versions are at hand: the document as stored, the typed fields as they were read from it, and the typed
fields as they are to be. The difference of the last two is applied to the first.
"""

from typing import Any, Final

import msgspec

from tortie.model.constants import ANNOTATION_METADATA

Body = dict[str, Any]

# Metadata keys with these parts are Calico's own: native even on objects with ANNOTATION_METADATA.
_NATIVE_KEY_PARTS: Final = ("projectcalico.org/", "operator.tigera.io/")
_USER_METADATA: Final = ("labels", "annotations")


def is_native_key(key: str) -> bool:
    """Whether a label or annotation is Calico's own, which it keeps natively on every object."""
    return any(part in key for part in _NATIVE_KEY_PARTS)


def rewritten(stored: Body, old: Body, new: Body) -> Body:
    """`stored` with the changes that lead from `old` to `new`; all three are whole objects.

    Where `stored` keeps users' labels and annotations in ANNOTATION_METADATA, changes of them go there.
    """
    metadata = stored.get("metadata", {})
    if ANNOTATION_METADATA not in metadata.get("annotations", {}):
        merged: Body = _merge(stored, old, new)
        return merged
    plain = {key: value for key, value in new.items() if key != "metadata"}
    merged = _merge(_without(stored), _without(old), plain)
    merged["metadata"] = _rewritten_metadata(metadata, old.get("metadata", {}), new.get("metadata", {}))
    return merged


def _without(body: Body) -> Body:
    return {key: value for key, value in body.items() if key != "metadata"}


def _rewritten_metadata(stored: Body, old: Body, new: Body) -> Body:
    result = _merge(
        {key: value for key, value in stored.items() if key not in _USER_METADATA},
        {key: value for key, value in old.items() if key not in _USER_METADATA},
        {key: value for key, value in new.items() if key not in _USER_METADATA},
    )
    text = new.get("annotations", {}).get(ANNOTATION_METADATA)
    if text is None:
        # The caller removed the annotation: from now on everything is native.
        return {**result, **{name: new[name] for name in _USER_METADATA if new.get(name)}}
    users: Body = msgspec.json.decode(text)
    before = msgspec.json.encode(users)
    natives: Body = {}
    for name in _USER_METADATA:
        was, wanted = old.get(name) or {}, new.get(name) or {}
        native = dict(stored.get(name) or {})
        own = dict(users.get(name) or {})
        for key in was.keys() - wanted.keys():
            own.pop(key, None)
            if is_native_key(key):
                native.pop(key, None)
        for key, value in wanted.items():
            if was.get(key) == value or key == ANNOTATION_METADATA:
                continue
            if is_native_key(key):
                native[key] = value
            if not is_native_key(key) or key in own:
                own[key] = value
        if own or name in users:
            users[name] = own
        natives[name] = native
    if msgspec.json.encode(users) != before:
        text = msgspec.json.encode(users).decode()
    natives["annotations"][ANNOTATION_METADATA] = text
    return {**result, **{name: value for name, value in natives.items() if value or name in stored}}


def _merge(stored: Any, old: Any, new: Any) -> Any:
    if old == new:
        return stored
    if stored == old:  # nothing in it is unknown
        return new
    if isinstance(stored, dict) and isinstance(old, dict) and isinstance(new, dict):
        return _merge_objects(stored, old, new)
    if isinstance(stored, list) and isinstance(old, list) and isinstance(new, list):
        return _merge_lists(stored, old, new)
    return new


def _merge_objects(stored: Body, old: Body, new: Body) -> Body:
    result = {key: value for key, value in stored.items() if key in new or key not in old}
    for key, value in new.items():
        if key not in old:
            # A typed field that had its default, maybe written out.
            result[key] = value
        elif key in stored:
            result[key] = _merge(stored[key], old[key], value)
        elif old[key] != value:
            result[key] = value
    return result


def _merge_lists(stored: list[Any], old: list[Any], new: list[Any]) -> list[Any]:
    """An element that was there before keeps what is unknown in it, wherever it stands now; one that changed
    is taken for the one at its place when the list has kept its length."""
    if len(stored) != len(old) or not any(isinstance(item, dict | list) for item in stored):
        return new
    free = list(range(len(old)))
    result: list[Any] = []
    unmatched: list[int] = []
    for place, item in enumerate(new):
        source = next((index for index in free if old[index] == item), None)
        if source is None:
            unmatched.append(place)
            result.append(item)
        else:
            free.remove(source)
            result.append(stored[source])
    if len(old) == len(new):
        for place in unmatched:
            if place in free:
                result[place] = _merge(stored[place], old[place], new[place])
    return result
