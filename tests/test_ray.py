"""A study on a real Ray cluster of three nodes, one of which is killed."""


import pytest
from invariants import broken
from study_runs import Study

from mtl.executors.ray_environment import settle_ray

settle_ray()  # before Ray is imported: token authentication

from ray.cluster_utils import Cluster  # noqa: E402


@pytest.fixture
def cluster():
    """Two nodes with a processor each, and a head without any."""
    common = {"object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **common})
    cluster.workers = [cluster.add_node(num_cpus=1, **common) for _ in range(2)]
    yield cluster
    cluster.shutdown()


@pytest.fixture
def study(tmp_path, cluster):
    study = Study(tmp_path / "study", tmp_path / "home", steps=30)
    study.env["RAY_ADDRESS"] = cluster.address
    yield study
    study.kill()


def test_a_node_that_is_killed_costs_no_trial(study, cluster):
    study.start("--executor", "ray", "--jobs", "2", "--trials", "4")
    study.wait_for("epoch 2")
    cluster.remove_node(cluster.workers.pop(), allow_graceful=False)
    out = study.wait_for("it goes on from its checkpoint")
    code, rest = study.end()
    assert code == 0, out + rest
    assert "its node is gone" in out or "its worker is gone" in out
    assert broken(study, 4) == []


def test_an_interrupted_study_goes_on_without_ray(study, tmp_path):
    """Ctrl-C checkpoints trials on the cluster; the same study ends the same elsewhere."""
    study.start("--executor", "ray", "--jobs", "1")
    study.wait_for("trial 0 epoch 1")
    study.process.send_signal(2)
    code, out = study.end()
    assert code == 130 and "Interrupted" in out, out
    code, out = study.run("--jobs", "1")
    assert code == 0, out
    assert broken(study, 3) == []
    alone = study.elsewhere(tmp_path / "alone")
    alone.env.clear()
    assert alone.run("--jobs", "1")[0] == 0
    assert study.trials() == alone.trials()
