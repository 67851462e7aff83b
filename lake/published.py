"""What a lake says of itself to whoever comes with an engine: its views, and which shards seal into it.

Whoever seals first writes them. A newer version of the store replaces an older one's, an older one never a newer's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache, partial

import obstore

from lake.bucket import create, is_folder, open_bucket, swap, told_of
from lake.dialects import DIALECTS, Dialect
from lake.views import VERSION, script

HEAD = re.compile(r"-- Views of a lake, version (\d+)")
SHARDS = "shards.json"
TRIES = 20
"""How often a file is read and written anew because another shard changed it in between."""


@cache
def publish(url: str, shard: str) -> None:
    """Write what is not there, or of an older version; once a process. Raises BucketRefused, BucketAway."""
    with told_of(url):
        for name, dialect in DIALECTS.items():
            replace(url, f"views/{name}.sql", partial(newer_script, dialect, url))
        replace(url, SHARDS, partial(with_shard, shard))


def newer_script(dialect: Dialect, url: str, was: str) -> str | None:
    match = HEAD.match(was)
    return None if match and int(match[1]) >= VERSION else script(dialect, url)


def with_shard(shard: str, was: str) -> str | None:
    """{"SHARD": {"version": …}}: of the views that it knows."""
    shards = json.loads(was or "{}")
    if shards.get(shard, {}).get("version", 0) >= VERSION:
        return None
    return json.dumps({**shards, shard: {"version": VERSION}}, indent=1, sort_keys=True) + "\n"


def replace(url: str, path: str, change: Callable[[str], str | None]) -> None:
    """What `change` makes of the object, or of nothing; None: it stays. No other's change is written over, but in a
    folder, which knows no condition for that."""
    bucket = open_bucket(url)
    for _ in range(TRIES):
        try:
            found = obstore.get(bucket, path)
        except FileNotFoundError:
            if (new := change("")) is None or create(bucket, path, new.encode()):
                return
            continue
        if (new := change(bytes(found.bytes()).decode())) is None:
            return
        if is_folder(url):
            obstore.put(bucket, path, new.encode())
            return
        if swap(bucket, path, new.encode(), {"e_tag": found.meta["e_tag"], "version": found.meta["version"]}):
            return
