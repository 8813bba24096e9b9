"""A vLLM of other insides is refused at start, in words that say what to install."""

from __future__ import annotations

from dataclasses import replace

import pytest
import vllm
from vllm import SamplingParams
from vllm.v1.outputs import SamplerOutput
from vllm.v1.sample.logits_processor.interface import BatchUpdate
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcRequestState
from vllm.v1.worker.gpu.states import RequestState
from vllm.v1.worker.gpu_input_batch import CachedRequestState

from service.engine import compatibility, fields
from service.engine.compatibility import assert_insides
from service.engine.relied import CALLED
from service.engine.seams import assert_supported
from service.errors import StartupError


def test_the_installed_one_is_supported() -> None:
    assert_supported()


@pytest.mark.parametrize("version", ["0.31.4", "0.33.0", "1.0.32", "0.320.0"])
def test_another_minor_version_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "__version__", version)
    with pytest.raises(StartupError) as caught:
        assert_supported()
    assert f"vLLM {version} is installed" in str(caught.value)
    assert "install vllm==0.32.0" in str(caught.value)


def test_a_patch_of_the_same_minor_version_is_judged_by_its_insides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vllm, "__version__", "0.32.7+cpu")
    assert_supported()


@pytest.mark.parametrize("owner", [SamplingParams, BatchUpdate, CachedRequestState, SamplerOutput])
def test_a_field_that_an_object_has_not_is_named(
    owner: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fields.READ, owner, (*fields.READ[owner], "index_to_req_id"))
    with pytest.raises(StartupError, match=rf"it lacks .*\.{owner.__name__}\.index_to_req_id$"):
        assert_supported()


def test_no_field_is_asked_of_an_object_of_another_kind() -> None:
    """The state that V2 gives a processor does not say which requests run."""
    found = fields._fields_of(LogitsProcRequestState)
    assert {"device", "prompt_len"} <= found
    assert "index_to_req_id" not in found
    assert "index_to_req_id" in fields._fields_of(RequestState)


def test_other_rows_of_logprobs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compatibility, "_LOGPROBS_FIELDS", ("logprobs",))
    with pytest.raises(StartupError, match="LogprobsLists has"):
        assert_insides([])


def test_a_function_that_is_called_and_not_replaced_is_asserted_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = replace(CALLED[0], parameters=("tokenizer",))
    monkeypatch.setattr(compatibility, "CALLED", (other,))
    told = r"from_new_request takes \(tokenizer, request\), expected \(tokenizer\)"
    with pytest.raises(StartupError, match=told):
        assert_insides([])
