"""Files on the Hugging Face hub: a commit to a data-set repository, and single files from it; errors in one line."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars, logging

from ..errors import ArtifactError, MissingArtifactError, SettingsError
from .files import unwritable

_KIND = "dataset"


def upload(repo: str, files: Mapping[str, Path], *, private: bool, message: str) -> str:
    """Add files, by their paths in the repository, in one commit; return its address.

    A repository that is not there is made; one that is keeps its visibility.

    Raises:
        SettingsError: no such name, or no token.
        ArtifactError: no network, or no right to write there.
    """
    with _explained(repo):
        if huggingface_hub.get_token() is None:
            raise LocalTokenNotFoundError
        api = HfApi()
        api.create_repo(repo, repo_type=_KIND, private=private, exist_ok=True)
        added = [CommitOperationAdd(name, path) for name, path in files.items()]
        done = api.create_commit(repo, added, repo_type=_KIND, commit_message=message)
        return str(done.commit_url)


def latest(repo: str, revision: str | None = None) -> str:
    """Return the commit that a revision of a repository stands for, the default branch without one."""
    with _explained(repo):
        return HfApi().dataset_info(repo, revision=revision).sha or "main"


def download(repo: str, name: str, folder: Path, *, revision: str) -> Path:
    """Fetch one file into a folder, under its path in the repository.

    Raises:
        MissingArtifactError: no such repository, revision or file.
        ArtifactError: no network, no right to read there, or no space for it.
    """
    with _explained(repo):
        return Path(HfApi().hf_hub_download(repo, name, repo_type=_KIND, revision=revision, local_dir=folder))


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Turn what the hub's client raises into one line; without its progress bars and its own messages."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    disable_progress_bars()
    try:
        yield
    except HFValidationError as error:
        raise SettingsError(f"{repo!r} is no repository of the hub: give OWNER/NAME, for example me/neurons") from error
    except LocalTokenNotFoundError as error:
        raise SettingsError(
            f"no token to write to {repo} with: run `hf auth login`, or set HF_TOKEN to one with the right to write"
        ) from error
    except OfflineModeIsEnabled as error:
        raise SettingsError(f"HF_HUB_OFFLINE is set, so {repo} cannot be reached: unset it for this command") from error
    except RevisionNotFoundError as error:
        raise MissingArtifactError(f"{repo} has no such revision: give another, or leave it out") from error
    except RepositoryNotFoundError as error:
        raise MissingArtifactError(
            f"the hub has no data set {repo}, or the token may not see it: check the name, or run `hf auth login`"
        ) from error
    except EntryNotFoundError as error:
        raise MissingArtifactError(
            f"{repo} lacks a file that results need ({str(error).splitlines()[0][:120]}): was it made by `lna push`?"
        ) from error
    except HfHubHTTPError as error:
        code = getattr(error.response, "status_code", "?")
        hint = "the token has no right to do this" if code in (401, 403) else "try again later"
        raise ArtifactError(f"the hub answered {code} for {repo}: {hint}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise unwritable(Path(error.filename or repo), error) from error
        of_httpx = type(error).__module__.startswith("httpx")  # whose errors are no OSErrors
        if not (of_httpx or isinstance(error, OSError | RuntimeError)):
            raise
        said = " ".join(str(error).split())[:160] or type(error).__name__
        raise ArtifactError(f"cannot reach the hub for {repo} ({said}): check the network, and try again") from error
    finally:
        enable_progress_bars()
        logging.set_verbosity(level)
