"""Backbones: found, checked, and pulled from a hub (a real server on loopback).

Room: minbert/backbone.
"""

import hashlib
import json
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from minbert import InputError, check_backbone, pull_backbone
from minbert.backbone.weights import backbone_shape, find_backbone, pulled_folder
from minbert.model.encoder import SHAPES
from support import small
from support.loopback import Replies, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "someone/tiny-bert"


class Hub(Replies):
    """As much of a Hugging Face hub as its client asks for."""

    def __init__(self, folder: Path, lies: dict, *args) -> None:
        self.folder, self.lies = folder, lies
        super().__init__(*args)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith(f"/api/models/{NAME}"):
            self.reply(json.dumps(self.info()).encode())
        elif path.startswith(f"/{NAME}/resolve/"):
            self.reply_file(path.rpartition("/")[2])
        else:
            self.reply(b"{}", 404, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def info(self) -> dict:
        files = []
        for file in sorted(self.folder.iterdir()):
            digest = self.lies.get(file.name) or hashlib.sha256(file.read_bytes()).hexdigest()
            entry = {"rfilename": file.name, "size": file.stat().st_size, "blobId": "b"}
            if file.suffix == ".safetensors":
                entry["lfs"] = {"sha256": digest, "size": entry["size"], "pointerSize": 1}
            files.append(entry)
        return {"id": NAME, "_id": "1", "sha": COMMIT, "siblings": files, "private": False}

    def reply_file(self, name: str) -> None:
        content = (self.folder / name).read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        self.reply(content, 200, {"ETag": etag, "X-Repo-Commit": COMMIT})


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one model; yields its folder, its lies about digests, and its address."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    folder, lies = small.backbone(tmp_path / "hub"), {}
    with serving(partial(Hub, folder, lies)) as address:
        yield folder, lies, address


def test_a_pulled_backbone_keeps_its_revision_and_digests(hub, tmp_path):
    folder, _, address = hub
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    report = pull_backbone(NAME, tmp_path / "cache", endpoint=address)
    assert report.pulled["revision"] == COMMIT and report.pulled["id"] == NAME
    for file in ("config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"):
        digest = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        assert report.pulled["sha256"][file] == digest
    assert report.digest == report.pulled["sha256"]["model.safetensors"]
    assert find_backbone(NAME, tmp_path / "cache") == report.folder
    assert check_backbone(NAME, tmp_path / "cache") == report


def test_damage_after_the_pull_is_found(hub, tmp_path):
    _, _, address = hub
    report = pull_backbone(NAME, tmp_path / "cache", endpoint=address)
    weights = report.folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match="differs from what was pulled"):
        check_backbone(NAME, tmp_path / "cache")


@pytest.mark.parametrize("note", ["{", "[]", '{"sha256": 3}'])
def test_a_damaged_note_of_the_pull_is_one_line(hub, tmp_path, note):
    report = pull_backbone(NAME, tmp_path / "cache", endpoint=hub[2])
    (report.folder / "pulled.json").write_text(note)
    with pytest.raises(InputError, match=r"pulled\.json: cannot be read .* mtl backbone pull"):
        check_backbone(NAME, tmp_path / "cache")


def test_a_vocabulary_without_unknown_words_is_refused(hub, tmp_path):
    file = hub[0] / "vocab.txt"
    file.write_text(file.read_text().replace("[UNK]\n", ""))
    with pytest.raises(InputError, match=r"vocab\.txt: \[UNK\], for unknown words, is not in"):
        pull_backbone(NAME, tmp_path / "cache", endpoint=hub[2])


def test_damage_on_the_way_is_refused_and_the_old_one_stays(hub, tmp_path):
    _, lies, address = hub
    report = pull_backbone(NAME, tmp_path / "cache", endpoint=address)
    lies["model.safetensors"] = "0" * 64
    with pytest.raises(InputError, match="arrived damaged"):
        pull_backbone(NAME, tmp_path / "cache", endpoint=address)
    assert check_backbone(NAME, tmp_path / "cache") == report
    assert [p.name for p in report.folder.parent.iterdir()] == [report.folder.name]


@pytest.mark.parametrize("name", ["someone/else", "not//an/id"])
def test_an_unknown_id_is_refused_in_one_line(hub, tmp_path, name):
    with pytest.raises(InputError, match=f"'{name}' could not be pulled") as caught:
        pull_backbone(name, tmp_path / "cache", endpoint=hub[2])
    assert "\n" not in str(caught.value) and "HTTPS_PROXY" not in str(caught.value)


def test_a_hub_that_is_away_is_said(tmp_path, hub):
    with pytest.raises(InputError, match="could not be pulled: .* HTTPS_PROXY are respected"):
        pull_backbone(NAME, tmp_path / "cache", endpoint="http://127.0.0.1:9")


def test_weights_without_safetensors_are_refused(hub, tmp_path):
    folder, _, address = hub
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"has no model\.safetensors .* pytorch_model\.bin is a p"):
        pull_backbone(NAME, tmp_path / "cache", endpoint=address)
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


def test_a_pickle_beside_the_safetensors_is_not_fetched(hub, tmp_path):
    folder, _, address = hub
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    report = pull_backbone(NAME, tmp_path / "cache", endpoint=address)
    assert not [file for file in report.folder.rglob("*") if file.suffix == ".bin"]


def test_an_unknown_backbone_says_how_to_get_it(tmp_path):
    with pytest.raises(InputError, match="mtl backbone pull bert-base-uncased"):
        find_backbone("bert-base-uncased", tmp_path)
    assert backbone_shape("bert-base-uncased", tmp_path) == SHAPES["bert-base-uncased"]
    assert pulled_folder("../../etc", tmp_path).parent == tmp_path / "backbones"


def test_check_reads_the_real_weights(real_backbone):
    report = check_backbone(str(real_backbone))
    assert report.digest == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert report.parameters == 22_713_216
