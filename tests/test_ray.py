"""A study on a real Ray cluster of three nodes, one of which is killed; what cannot run there.

Room: mtl/executors.
"""


import sys
from dataclasses import replace

import pytest

from minbert import InputError
from mtl.executors.ray_environment import settle_ray
from support.invariants import broken
from support.study_runs import Study

settle_ray()  # before Ray is imported: token authentication

from ray.cluster_utils import Cluster  # noqa: E402

from mtl.executors.ray_cluster import node_context  # noqa: E402
from mtl.executors.ray_task import look  # noqa: E402
from mtl.executors.resources import Folders  # noqa: E402

_COMMON = {"object_store_memory": 80 << 20, "include_dashboard": False}
# A node is dead after five checks without an answer; Ray makes one in three seconds by itself.
_HEAD = {"num_cpus": 0, "_system_config": {"health_check_period_ms": 500}, **_COMMON}


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with a processor each, and a head without any. One of them a test kills: the others
    have enough with one."""
    cluster = Cluster(initialize_head=True, head_node_args=_HEAD)
    for _ in range(2):
        cluster.add_node(num_cpus=1, **_COMMON)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def study(tmp_path, cluster):
    study = Study(tmp_path / "study", tmp_path / "home", steps=30).furnished()
    study.env["RAY_ADDRESS"] = cluster.address
    yield study
    study.kill()


def test_a_node_that_is_killed_costs_no_trial(study, cluster):
    study.start("--executor", "ray", "--jobs", "2", "--trials", "4")
    study.wait_for("epoch 2")
    cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
    out = study.wait_for("it goes on from its checkpoint")
    code, rest = study.end()
    assert code == 0, out + rest
    assert "its node is gone" in out or "its worker is gone" in out
    assert broken(study, 4) == []


def test_who_lacks_the_token_is_refused(study):
    study.env |= {"RAY_AUTH_TOKEN": "0" * 64, "RAY_NUM_REDIS_GET_RETRIES": "2"}
    code, out = study.run("--executor", "ray")
    assert code == 2 and "does not let us in" in out, out


def test_an_interrupted_study_goes_on_without_ray(study):
    """Ctrl-C checkpoints trials on the cluster."""
    study.start("--executor", "ray", "--jobs", "1")
    study.wait_for("trial 0 epoch 1")
    study.process.send_signal(2)
    code, out = study.end()
    assert code == 130 and "Interrupted" in out, out
    code, out = study.run_here("--jobs", "1")
    assert code == 0, out
    assert "trial 0 epoch 1" not in out  # from its checkpoint
    assert broken(study, 3) == []


def test_what_a_node_lacks_is_said(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    folders = Folders(home, home, "sqlite:///x.db", (tmp_path / "nowhere",))
    context = node_context(folders)
    assert f"does not see {tmp_path / 'nowhere'}" in look(context).wrong
    here = replace(context, folders=())
    assert look(here).wrong is None
    assert "has another folder at" in look(replace(here, home_id="another")).wrong


def test_nobody_at_the_address_is_one_clear_line(here, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    ran = here(tmp_path, "study", "run", "lora_sweep", "--executor", "ray")
    ran.refused("RAY_ADDRESS=127.0.0.1:1", "nobody answers")


def test_what_is_rays_is_refused_elsewhere(here, tmp_path):
    ran = here(tmp_path, "study", "run", "lora_sweep", "--gpus-per-trial", "0.5")
    ran.refused("--gpus-per-trial", "--executor ray")


def test_without_ray_it_is_said_how_to_get_it(here, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "mtl.executors.ray", raising=False)
    here(tmp_path, "study", "run", "lora_sweep", "--executor", "ray").refused("'.[ray]'")


def test_a_client_that_has_lost_its_server_has_lost_the_head():
    """Ray's own client, which was never connected, as it is once its server is gone."""
    from ray.util.client import RayAPIStub

    from mtl.executors.ray import _head_there, _if_there

    with pytest.raises(InputError, match="lost its head node"), _head_there():
        RayAPIStub().put(1)
    with _if_there():
        RayAPIStub().put(1)
    with pytest.raises(ZeroDivisionError), _if_there():
        _ = 1 / 0
