"""Fetching a backbone from a Hugging Face hub, with its revision and digests kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ..common.paths import new_folder, replace_folder
from ..common.pickles import find_pickle
from ..errors import InputError
from .check import BackboneReport, check_backbone
from .weights import file_digest, pulled_folder

FILES = (
    *("config.json", "model.safetensors"),
    *("tokenizer.json", "vocab.txt", "tokenizer_config.json"),
)
_NEEDED = frozenset({"config.json", "model.safetensors"})


def pull_backbone(
    name: str, cache_dir: Path, revision: str | None = None, endpoint: str | None = None
) -> BackboneReport:
    """Fetch a backbone into the cache and check it; what was there before stays until then.

    The commit that a revision stood for, and the sha256 of every file, are kept in
    ``pulled.json``. Files whose digest the hub publishes are compared with it.

    Args:
        name: a Hugging Face id, ``bert-base-uncased`` or ``owner/name``.
        revision: a branch, tag or commit; the main branch if not given.
        endpoint: the hub's address; ``HF_ENDPOINT`` or the public one if not given.

    Raises:
        InputError: the hub does not answer, or has no such id or no safetensors.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, HTTPError  # the HTTP client's own

    api = HfApi(endpoint=endpoint)
    target = pulled_folder(name, cache_dir)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = new_folder(target.parent, ".pull-")
    try:
        info = api.model_info(name, revision=revision, files_metadata=True)
        _fetch(api, name, info, part)
    except (HFValidationError, HTTPError, OSError) as error:
        raise InputError(
            f"backbone: {name!r} could not be pulled: {_why(error, api.endpoint)}"
        ) from None
    else:
        _replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return check_backbone(name, cache_dir)


def _fetch(api, name: str, info, part: Path) -> None:
    published = {file.rfilename: file for file in info.siblings or ()}
    missing = sorted(_NEEDED - set(published))
    if missing:
        found = find_pickle(published)
        instead = f"; its {found} is a pickle, which is never read" if found else ""
        raise InputError(f"backbone: {name!r} has no {missing[0]} at revision {info.sha}{instead}")
    digests = {}
    for file in (f for f in FILES if f in published):
        path = Path(api.hf_hub_download(name, file, revision=info.sha, local_dir=part))
        digests[file] = file_digest(path)
        wanted = getattr(published[file].lfs, "sha256", None)
        if wanted and wanted != digests[file]:
            raise InputError(
                f"backbone: {name}/{file} arrived damaged: sha256 {digests[file]}, "
                f"the hub says {wanted}; pull it again"
            )
    note = {"id": name, "revision": info.sha, "sha256": digests}
    (part / "pulled.json").write_text(json.dumps(note, indent=2) + "\n", "utf-8")
    shutil.rmtree(part / ".cache", ignore_errors=True)  # the hub client's own notes


def _replace(part: Path, target: Path) -> None:
    old = target.with_name(f".old-{part.name}")
    replace_folder(part, target, old)
    shutil.rmtree(old, ignore_errors=True)


def _why(error: Exception, hub: str) -> str:
    from huggingface_hub.errors import HTTPError

    lines = str(error).strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    away = isinstance(error, HTTPError | ConnectionError)
    if not away or getattr(error, "response", None) is not None:
        return line  # the disk, or the name; or the hub has answered
    return (
        f"{line}; see that this machine reaches {hub} (HF_ENDPOINT and HTTPS_PROXY "
        "are respected), or copy a folder with the encoder here and give that"
    )
