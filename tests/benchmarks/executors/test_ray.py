from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
import ray
from ray.cluster_utils import Cluster

from benchmarks.executors import make_executor
from rss_env.errors import OptionError
from tests.benchmarks.executors.suites import check_leaderboard, unbroken
from tests.benchmarks.executors.work import Counting, Training

STEPS = 300
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Two machines of one CPU each, which are processes here."""
    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    try:
        cluster.add_node(**NODE)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_the_run_of_a_machine_that_dies_goes_on_on_another(cluster: Cluster, tmp_path: Path) -> None:
    counting = Counting(tmp_path, steps=300)
    (lost,) = cluster.worker_nodes

    def kill() -> None:
        counting.wait_for_steps(0, 1)
        cluster.remove_node(lost, allow_graceful=False)

    with pytest.raises(OptionError, match=r"--engine-options: .*num_moons"):
        make_executor("ray", 2, {"num_moons": 1}, tmp_path)
    executor = make_executor("ray", 2, {}, tmp_path)
    thread = Thread(target=kill)
    thread.start()
    counting.run(3, executor)
    thread.join()
    again = {run for run, _ in counting.begun()[2:]} - {2}
    assert len(again) == 1
    counting.check_each_step(3, begun_again=again)


def test_a_training_whose_machine_dies_goes_on_from_its_checkpoint_to_the_same_end(
    cluster: Cluster, tmp_path: Path
) -> None:
    training, (lost,) = Training(tmp_path / "killed", STEPS), cluster.worker_nodes
    training.root.mkdir()

    def kill() -> None:
        training.wait_for_steps(0, 1)
        cluster.remove_node(lost, allow_graceful=False)

    thread = Thread(target=kill)
    thread.start()
    training.run(2, make_executor("ray", 2, {}, tmp_path))
    thread.join()
    again = {run for run, _ in training.begun()[2:]}
    assert len(again) == 1
    training.check(unbroken(tmp_path, training), begun_again=again)


def test_a_leaderboard_on_two_machines_is_the_one_without(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_leaderboard("ray", {}, tmp_path, monkeypatch)
