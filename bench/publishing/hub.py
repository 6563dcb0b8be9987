"""A parcel -> a repository on the Hugging Face hub, in one commit, through huggingface_hub.

Who writes is who is logged in there (`hf auth login`, or HF_TOKEN): no token passes through lerpbench.  A model's
repository belongs to others as a rule, so it gets a pull request.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.publishing.parcels import Parcel
from bench.schema import UserError
from leaderboard.show.render import MANIFEST

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def send(parcel: Parcel, private: bool = False) -> str:
    """Make the repository where it is missing, commit the files; the address of what was made.

    Files of an earlier site that this one lacks are deleted, others are left alone.  Raises UserError.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    with _explained(parcel):
        if get_token() is None:
            raise UserError("nobody is logged in to the hub here; `hf auth login` does that")
        api = HfApi(library_name="lerpbench")
        if parcel.kind != "model":
            sdk = "static" if parcel.kind == "space" else None
            api.create_repo(parcel.target, repo_type=parcel.kind, private=private, space_sdk=sdk, exist_ok=True)
        changes: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(name, str(parcel.folder / name)) for name in parcel.files),
            *(CommitOperationDelete(path) for path in _stale(api, parcel)),
        ]
        done = api.create_commit(
            parcel.target, changes, commit_message=parcel.message, repo_type=parcel.kind,
            create_pr=parcel.kind == "model",
        )  # fmt: skip
        return done.pr_url or address(parcel)


def address(parcel: Parcel) -> str:
    """Where a reader finds the repository."""
    from huggingface_hub import constants

    prefix = {"space": "spaces/", "dataset": "datasets/", "model": ""}[parcel.kind]
    return f"{constants.ENDPOINT}/{prefix}{parcel.target}"


def site_address(repository: str) -> str:
    """Where the pages of a static Space are read by themselves; nothing for another hub, which may do otherwise.

    https://huggingface.co/docs/hub/spaces-embed
    """
    from huggingface_hub import constants

    if constants.ENDPOINT != "https://huggingface.co":
        return ""
    return f"https://{re.sub('[^a-z0-9]+', '-', repository.lower())}.static.hf.space"


def _stale(api: "HfApi", parcel: Parcel) -> list[str]:
    """What the last site listed and this one lacks, of what is there."""
    if parcel.kind != "space":
        return []
    there = set(api.list_repo_files(parcel.target, repo_type=parcel.kind))
    if MANIFEST not in there:
        return []
    listing = api.hf_hub_download(parcel.target, MANIFEST, repo_type=parcel.kind)
    with open(listing, encoding="utf-8") as file:
        listed = json.load(file)
    return sorted(there & {str(name) for name in listed} - set(parcel.files))


@contextmanager
def _explained(parcel: Parcel) -> Iterator[None]:
    """The hub's errors as one line for a user."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    unreached: tuple[type[BaseException], ...] = (OSError, RuntimeError)
    unreached += HfHubHTTPError.__bases__  # httpx.HTTPError, or that of the client that this release uses
    where = f"{parcel.kind} {parcel.target}"
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise UserError(f"{where}: the hub is off by HF_HUB_OFFLINE; publish with HF_HUB_OFFLINE=0") from error
    except HFValidationError as error:
        raise UserError(f"{where}: expected OWNER/NAME: {_line(error)}") from error
    except HfHubHTTPError as error:
        raise UserError(f"{where}: the hub refused: {_line(error)}") from error
    except unreached as error:
        raise UserError(f"{where}: the hub could not be reached: {_line(error)}") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
