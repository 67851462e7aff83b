"""Reads all that a lake's bucket has, object by object, to find where a text still stands: in Parquet every value of
every column, decompressed, and all that is around them; of all else the bytes."""

from __future__ import annotations

import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import obstore
from obstore.store import from_url


def holding(url: str, *texts: str) -> set[str]:
    """The paths of the objects that have one of the texts."""
    options = {"client_options": {"allow_http": True}} if url.startswith("s3:") else {}
    store = from_url(url, **options)  # type: ignore[call-overload]
    with TemporaryDirectory() as folder:
        copy = Path(folder, "object")
        found = set()
        for page in obstore.list(store):
            for entry in page:
                content = bytes(obstore.get(store, entry["path"]).bytes())
                if entry["path"].startswith("tail/") and (packed := content.partition(b"\n")[2]):
                    content += zlib.decompress(packed)
                copy.write_bytes(content)
                if any(text.encode() in content for text in texts) or (
                    content[:4] == b"PAR1" and any(text in value for value in values(copy) for text in texts)
                ):
                    found.add(entry["path"])
    return found


def values(path: Path) -> list[str]:
    """Of a Parquet file, each row as JSON, and what its footer says of each piece of a column."""
    with duckdb.connect() as engine:
        rows = engine.execute(f"SELECT CAST(to_json(t) AS VARCHAR) FROM read_parquet('{path}') t").fetchall()
        footer = engine.execute(f"SELECT CAST(to_json(t) AS VARCHAR) FROM parquet_metadata('{path}') t").fetchall()
    return [value for (value,) in rows + footer]


def kinds(paths: set[str]) -> set[str]:
    """Of objects, by table and kind: events/parquet, events/log, events/checkpoint."""
    return {
        f"{path.split('/')[0]}/"
        + ("checkpoint" if ".checkpoint" in path else "log" if "/_delta_log/" in path else path.rpartition(".")[2])
        for path in paths
    }
