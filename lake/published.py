"""What a lake says of itself to whoever comes with an engine: its views, and which shards seal into it.

Whoever seals first writes them. A newer version of the store replaces an older one's, an older one never a newer's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import from_url

from lake.dialects import DIALECTS, Dialect
from lake.views import VERSION, script

if TYPE_CHECKING:
    from obstore.store import ObjectStore

HEAD = re.compile(r"-- Views of a lake, version (\d+)")
SHARDS = "shards.json"
TRIES = 20
"""How often a file is read and written anew because another shard changed it in between."""


@cache
def publish(url: str, shard: str) -> None:
    """Write what is not there, or of an older version; once a process. Raises what the bucket says."""
    bucket = from_url(url)
    for name, dialect in DIALECTS.items():
        replace(bucket, f"views/{name}.sql", partial(newer_script, dialect, url))
    replace(bucket, SHARDS, partial(with_shard, shard))


def newer_script(dialect: Dialect, url: str, was: str) -> str | None:
    match = HEAD.match(was)
    return None if match and int(match[1]) >= VERSION else script(dialect, url)


def with_shard(shard: str, was: str) -> str | None:
    """{"SHARD": {"version": …}}: of the views that it knows."""
    shards = json.loads(was or "{}")
    if shards.get(shard, {}).get("version", 0) >= VERSION:
        return None
    return json.dumps({**shards, shard: {"version": VERSION}}, indent=1, sort_keys=True) + "\n"


def replace(bucket: ObjectStore, path: str, change: Callable[[str], str | None]) -> None:
    """What `change` makes of the object, or of nothing; None: it stays. No other's change is written over."""
    for _ in range(TRIES):
        try:
            found = obstore.get(bucket, path)
        except FileNotFoundError:
            was, there = "", None
        else:
            was, there = bytes(found.bytes()).decode(), found.meta
        if (new := change(was)) is None or put(bucket, path, new.encode(), there):
            return


def put(bucket: ObjectStore, path: str, content: bytes, there: obstore.ObjectMeta | None) -> bool:
    """Whether it was still as it was found. A folder knows no other condition than that nothing is there."""
    try:
        if there is None:
            obstore.put(bucket, path, content, mode="create")
        else:
            obstore.put(bucket, path, content, mode={"e_tag": there["e_tag"] or "", "version": there["version"]})
    except NotImplementedError:
        obstore.put(bucket, path, content)
    except (AlreadyExistsError, PreconditionError):
        return False
    return True
