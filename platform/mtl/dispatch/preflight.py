"""What is looked at before anything runs: the data and the weights that a study will read."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..storage.home import Home
from ..study.spec import StudySpec
from ..tracking import tag_keys
from ..tracking.inputs import Inputs

if TYPE_CHECKING:
    from minbert import Config

    from ..tracking.inputs import DatasetInput


def preflight(spec: StudySpec, home: Home) -> dict[tuple[str, str], Inputs]:
    """Check all data and weights that the study names.

    Returns:
        What each pair of ``data.path`` and ``backbone`` consists of.

    Raises:
        InputError: something is missing or cannot be used.
    """
    found: dict[tuple[str, str], Inputs] = {}
    for config in _readings(spec):
        pair = (config.data.path, config.backbone)
        if pair not in found:
            found[pair] = read_inputs(config, home)
    return found


def check_cohort(spec: StudySpec, cohort: int) -> None:
    """Make sure that workers can have so many trials at a time.

    Raises:
        InputError: there are several for a GPU: steps of one may not be captured as graphs while
            others use it.
    """
    from minbert import InputError
    from minbert.device import pick_device

    if cohort == 1:
        return
    for device in _given("train.device", spec):
        if pick_device(spec.config_of(device).train.device).type != "cpu":
            raise InputError(
                f"--cohort {cohort}: on a GPU a worker has one trial at a time as yet; leave "
                "--cohort out, or train on the processor with --set train.device=cpu"
            )


def local_inputs(spec: StudySpec) -> tuple[Path, ...]:
    """Return the folders with data and weights that the study names; other machines that train
    its trials must see them, too."""
    from minbert.common.paths import given_path, is_folder

    given = {name for each in _readings(spec) for name in (each.data.path, each.backbone)}
    folders = (given_path(name).absolute() for name in sorted(given - {"demo"}))
    return tuple(folder for folder in folders if is_folder(folder))


def read_inputs(config: Config, home: Home) -> Inputs:
    """Check the data and weights of one configuration and return their digests.

    Raises:
        InputError: something is missing or cannot be used.
    """
    import minbert
    from minbert.device import pick_device

    pick_device(config.train.device)
    backbone = minbert.check_backbone(config.backbone, home.cache)
    data = minbert.data_digest(config.data.path, home.cache)
    tags = {tag_keys.DATA_DIGEST: data, tag_keys.BACKBONE_DIGEST: backbone.digest}
    return Inputs(_datasets(config.data.path, home), tags)


def _readings(spec: StudySpec) -> list[Config]:
    """A configuration for every data folder and backbone that a trial can have."""
    axes = [_given(key, spec) for key in ("data.path", "backbone")]
    return [spec.config_of({**data, **backbone}) for data, backbone in itertools.product(*axes)]


def _given(key: str, spec: StudySpec) -> list[dict[str, Any]]:
    """The values of a key that a trial can have, as they are given beside the study's own."""
    values = [point[key] for point in spec.points if key in point]
    values += spec.search[key].corners() if key in spec.search else []
    return [{}] + [{key: value} for value in values]


def _datasets(path: str, home: Home) -> list[DatasetInput]:
    import minbert
    from minbert.backbone.weights import file_digest
    from minbert.data.files import find_data

    from ..storage.urls import file_url
    from ..tracking.inputs import DatasetInput

    folder = find_data(path, home.cache)
    rows: dict[str, int] = {}
    digests: dict[str, hashlib._Hash] = {}
    for report in minbert.check_data(path, home.cache):
        if report.split == "test":
            continue
        name = f"{report.task}/{report.split}"
        rows[name] = rows.get(name, 0) + report.used
        digest = digests.setdefault(name, hashlib.sha256())
        digest.update(f"{report.file} {file_digest(folder / report.file)}\n".encode())
    source = file_url(folder)
    return [DatasetInput(name, digests[name].hexdigest(), rows[name], source) for name in rows]
