"""SyncNet's file: loaded by the published names, also where it lacks what old files lack."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gaussian_head.networks.syncnet import SyncNet, load_syncnet


@torch.inference_mode()
def test_a_file_without_batch_counts_gives_the_same_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = SyncNet().eval()
    for norm in (written.netcnnaud[1], written.netfcaud[1]):
        norm.running_mean.uniform_(-1, 1)
    state = {name: value for name, value in written.state_dict().items() if "num_batches_tracked" not in name}
    torch.save(state, tmp_path / "syncnet_v2.model")
    monkeypatch.setenv("GAUSSIAN_HEAD_CHECKPOINTS", str(tmp_path))
    network = load_syncnet(torch.device("cpu"))
    assert not network.training
    mfcc = torch.randn(2, 1, 13, 20)
    torch.testing.assert_close(network.encode_sound(mfcc), written.encode_sound(mfcc))
