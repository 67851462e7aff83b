"""The bucket: where it is, its objects, and a probe whether it keeps the conditions that writers depend on.

Two programs that write into one bucket know of each other by it alone: a commit is an object that may be created once.
Some stores take the header that says so, and ignore it. Such a one loses events without a word: it is refused before
anything is written.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)
from obstore.store import from_url

if TYPE_CHECKING:
    from obstore import PutResult, UpdateVersion
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs", "az", "file")
RIVALS = 6
"""How many create one object at the same time."""
PROBES = "probe"
LEFT_OVER = timedelta(hours=1)
"""After which what a probe has left that was killed is removed by the next."""
CONNECT_SECONDS = 3.0
SECONDS, PROBE_SECONDS = 60.0, 4.0
"""For one request and its answer, which may be a large object; in a probe, for which a whole store waits."""
TRIES = 2
REFUSED = re.compile(r"status code: (4(?!08|29)\d\d|501) |incorrectly configured region")
"""What a store answers that will say the same again."""


class BucketRefused(Exception):
    """It cannot have a lake, now or later. The message names it, and the remedy."""


class BucketAway(Exception):
    """It does not answer, or not now. The message names it."""


def open_bucket(url: str, seconds: float = SECONDS) -> ObjectStore:
    """The objects below the URL of a lake; credentials are those of the environment, or of the machine's role.

    `seconds`: for each request. Raises BucketRefused for an URL that names no place.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not (parts.path if parts.scheme == "file" else parts.netloc):
        raise BucketRefused(
            f"{url!r} is no place for a lake: name one such as s3://bucket/prefix, gs://…, az://…, or file:///folder"
        )
    try:
        if parts.scheme == "file":
            return from_url(url, mkdir=True, automatic_cleanup=True)
        options = {
            "timeout": timedelta(seconds=seconds),
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("true", "1"),
        }
        tries = {"max_retries": TRIES, "retry_timeout": timedelta(seconds=seconds)}
        return from_url(url, client_options=options, retry_config=tries)  # type: ignore[call-overload, no-any-return]
    except (BaseError, OSError, ValueError) as error:
        raise BucketRefused(f"The place {url} cannot be opened: {first_line(error)}") from None


@contextmanager
def told_of(url: str) -> Iterator[None]:
    """What a store says, as BucketRefused or BucketAway, with what can be done."""
    try:
        yield
    except (BucketRefused, BucketAway):
        raise
    except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
        raise BucketRefused(
            f"{url} does not let this store in: {first_line(error)}. It needs the rights to get, put, list and delete; "
            f"{credentials(url)}"
        ) from None
    except (NotSupportedError, NotImplementedError) as error:
        raise BucketRefused(ignoring(url, f"does not know conditional writes ({first_line(error)})")) from None
    except FileNotFoundError as error:
        raise BucketRefused(f"{url} is not there: {first_line(error)}. Create the bucket, or name another") from None
    except (InvalidPathError, UnknownConfigurationKeyError, ValueError) as error:
        raise BucketRefused(f"{url} cannot be used: {first_line(error)}") from None
    except (BaseError, OSError) as error:
        if REFUSED.search(str(error)):
            raise BucketRefused(f"{url} refuses: {first_line(error)}. {credentials(url)}") from None
        raise BucketAway(f"{url} does not answer: {first_line(error)}; {credentials(url)}") from None


def first_line(error: Exception) -> str:
    """Of what a library says; below it follows how it came about."""
    return str(error).partition("\n")[0].partition(": <?xml")[0].removesuffix(":").strip() or type(error).__name__


def credentials(url: str) -> str:
    """What the environment has to say."""
    return {
        "s3": "see AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL, or the machine's role",
        "gs": "see GOOGLE_APPLICATION_CREDENTIALS, or the machine's service account",
        "az": "see AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY, or the machine's identity",
    }.get(urlsplit(url).scheme, "see whose the folder is")


def ignoring(url: str, what: str) -> str:
    return (
        f"{url} {what}: what one server has written another could write over, and nobody would know. Use a store that "
        "keeps If-None-Match and If-Match, as Amazon S3, Google Cloud Storage and Azure do, and of others the newest"
    )


# ------------------------------------------------------------------------- objects


def create(bucket: ObjectStore, path: str, content: bytes) -> PutResult | None:
    """Put an object where none is. None: there is one already, or the answer to a first attempt was lost."""
    with suppress(AlreadyExistsError, PreconditionError):
        return obstore.put(bucket, path, content, mode="create", use_multipart=False)
    return None


def swap(bucket: ObjectStore, path: str, content: bytes, made: PutResult) -> PutResult | None:
    """Put an object in the place of one that is still as it was made. None: it is not."""
    version: UpdateVersion = {}
    if made["e_tag"] is not None:
        version["e_tag"] = made["e_tag"]
    if made["version"] is not None:
        version["version"] = made["version"]
    with suppress(AlreadyExistsError, PreconditionError):
        return obstore.put(bucket, path, content, mode=version, use_multipart=False)
    return None


def read(bucket: ObjectStore, path: str) -> bytes:
    return bytes(obstore.get(bucket, path).bytes())


# --------------------------------------------------------------------------- probe


def probe(url: str) -> None:
    """Try out what every writer depends on, on objects that are gone afterwards.

    Create, refuse a second creation, swap, refuse a stale swap, and let one of six win that create the same. In a
    folder there is no swap: deltalake needs none there. Raises BucketRefused, BucketAway.
    """
    bucket = open_bucket(url, PROBE_SECONDS)
    folder = f"{PROBES}/{secrets.token_hex(16)}"
    with told_of(url):
        try:
            for trial in (try_creation, try_race) if is_folder(url) else (try_creation, try_swap, try_race):
                if found := trial(bucket, f"{folder}/{trial.__name__}"):
                    raise BucketRefused(ignoring(url, found))
        except BaseException:
            with suppress(BaseError, OSError):
                remove(bucket, folder)
            raise
        remove(bucket, folder)
        remove_left_over(bucket)


def is_folder(url: str) -> bool:
    return urlsplit(url).scheme == "file"


def try_creation(bucket: ObjectStore, path: str) -> str:
    """What is wrong; nothing: an empty text."""
    if create(bucket, path, b"first") is None and read(bucket, path) != b"first":
        return "says that there is an object where none is"
    if create(bucket, path, b"second") is not None or read(bucket, path) != b"first":
        return "ignores If-None-Match: an object that was there was written over"
    return ""


def try_swap(bucket: ObjectStore, path: str) -> str:
    made = obstore.put(bucket, path, b"first", use_multipart=False)
    if swap(bucket, path, b"second", made) is None and read(bucket, path) != b"second":
        return "refuses If-Match for an object that is as it was"
    if swap(bucket, path, b"stale", made) is not None or read(bucket, path) != b"second":
        return "ignores If-Match: an object that had changed was written over"
    return ""


def try_race(bucket: ObjectStore, path: str) -> str:
    contents = [b"%d" % number for number in range(RIVALS)]
    with ThreadPoolExecutor(RIVALS) as rivals:
        answers = list(rivals.map(lambda content: create(bucket, path, content), contents))
    winners = [content for content, answer in zip(contents, answers, strict=True) if answer is not None]
    if len(winners) > 1 or (winners and winners != [read(bucket, path)]):
        return f"lets {len(winners)} of {RIVALS} win that create the same object at once"
    return ""


def remove(bucket: ObjectStore, folder: str) -> None:
    each(bucket, folder, lambda found: True)


def remove_left_over(bucket: ObjectStore) -> None:
    before = datetime.now(UTC) - LEFT_OVER
    each(bucket, PROBES, lambda found: found < before)


def each(bucket: ObjectStore, folder: str, is_meant: Callable[[datetime], bool]) -> None:
    """Delete the objects of a folder that were last changed when it is meant."""
    for some in obstore.list(bucket, f"{folder}/"):
        if paths := [found["path"] for found in some if is_meant(found["last_modified"])]:
            obstore.delete(bucket, paths)


def folder_of(url: str) -> str:
    """Where a lake of file:// is."""
    return unquote(urlsplit(url).path)
