"""After all the other suites, by its name: what openapi.yaml promises of answers is what answers had."""

import pathlib

import pytest

from accounts import CONTRACT

pytestmark = pytest.mark.simulated

HERE = pathlib.Path(__file__).resolve().parent
ELSEWHERE = {"test_litellm.py"}

# Described properties of answers that no answer of the suites has, and why.
NEVER_CARRIED: dict[str, str] = {
    "DetokenizedText.text": "SGLang's word for it; the suites' nodes say vLLM's",
    "DetokenizedText.content": "llama.cpp's word for it; the suites' nodes say vLLM's",
    "MessageAnswer.usage.cache_read_input_tokens": "real engines say it; the suites' nodes do not for messages",
}


def test_every_described_property_of_an_answer_was_carried_by_one(request):
    session = request.session
    ran = {pathlib.Path(item.fspath).name for item in session.items}
    options = session.config.option
    if options.keyword or options.deselect or not ran >= {file.name for file in HERE.glob("test_*.py")} - ELSEWHERE:
        pytest.skip("says something of whole runs only")
    if session.testsfailed:
        pytest.skip("a test failed, and its answers may be missing")
    described = CONTRACT.described()
    assert len(described) > 50
    never = described - CONTRACT.carried
    assert never - set(NEVER_CARRIED) == set(), "described, and no answer had it"
    assert set(NEVER_CARRIED) - never == set(), "no exceptions any more"
