"""Small arrays reach the device as they were."""

import numpy as np
import torch

from logit_processors.upload import upload
from tests.unit_support import CPU


def test_numbers_keep_their_value_and_become_token_ids() -> None:
    for values in ([3, 1, 2], np.array([3, 1, 2])):
        tensor = upload(values, CPU)
        assert (tensor.dtype, tensor.tolist()) == (torch.int64, [3, 1, 2])


def test_any_type_and_shape_may_be_asked_for() -> None:
    tensor = upload([(0, 2), (1, 5)], CPU, torch.int32)
    assert (tensor.dtype, tensor.tolist()) == (torch.int32, [[0, 2], [1, 5]])
