"""Choosing where to compute."""

from __future__ import annotations

import pytest
import torch

from gaussian_head.device import choose_device
from gaussian_head.errors import UserError


def test_auto_takes_a_gpu_where_there_is_one():
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "mps", "cuda:", "0"])
def test_other_names_are_refused(name):
    with pytest.raises(UserError, match=r"cuda:NUMBER, got '" + name):
        choose_device(name)


def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"sees \d+ GPUs here; give --device cpu"):
        choose_device("cuda:99")
