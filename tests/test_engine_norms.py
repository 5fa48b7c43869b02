"""RMS norms in two kernels give what the modules give; modules that compute anything else are left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import SPECIFICATIONS, random_examples, random_steering, tiny_model

from cache_builder.engine import Engine
from cache_builder.engine.norms import in_two_kernels, rms_norms, two_kernel_norm

# Multiplied after rounding, as transformers writes most. Gemma's weight is an offset from one; OLMo 2 rounds later.
TAKEN = {"llama": 7, "qwen2": 7, "qwen3": 13, "mistral": 7, "mixtral": 7, "phi3": 7}
LOW = (torch.bfloat16, torch.float16)


def a_model(name: str, dtype: torch.dtype = torch.float32):
    """With weights of the norms as uneven as trained ones are."""
    model = tiny_model(name).to(dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim == 1 and "norm" in key:
                parameter.copy_(1 + 0.3 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("dtype", [torch.float32, *LOW])
@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_norms_that_round_before_the_weight_are_taken_and_no_others(name, dtype):
    assert len(rms_norms(a_model(name, dtype))) == TAKEN.get(name, 0)


@pytest.mark.parametrize("dtype", LOW)
def test_a_result_is_the_modules_but_for_the_rounding_of_a_sum(dtype):
    module = rms_norms(a_model("llama", dtype))[0]
    hidden = 5 * torch.randn(40, 100, 32, generator=torch.Generator().manual_seed(2)).to(dtype)
    own, ours = module(hidden), two_kernel_norm(module, hidden)
    assert own.dtype == ours.dtype
    assert (own != ours).float().mean() < 1e-3
    torch.testing.assert_close(ours, own, rtol=torch.finfo(dtype).eps, atol=0.0)


@pytest.mark.parametrize("dtype", LOW)
def test_weights_that_are_kept_in_float32_give_the_type_that_the_module_gives(dtype):
    """OLMo 2 rounds to the type of its input, the others give float32: what is taken has to do as they do."""
    module = rms_norms(a_model("llama"))[0]
    hidden = torch.randn(40, 32, generator=torch.Generator().manual_seed(2)).to(dtype)
    own, ours = module(hidden), two_kernel_norm(module, hidden)
    assert own.dtype == ours.dtype == torch.float32
    torch.testing.assert_close(ours, own, rtol=torch.finfo(dtype).eps, atol=0.0)
    assert a_model("olmo2").model.norm(hidden).dtype == dtype


@pytest.mark.parametrize("change", ["epsilon", "offset", "no_epsilon", "gated", "picky", "wrapped"])
def test_a_module_that_computes_something_else_is_left_alone(change):
    model = a_model("llama")
    norm = model.model.norm
    if change == "epsilon":  # a module that says one and uses another

        class OtherRMSNorm(type(norm)):
            def forward(self, hidden):
                return super().forward(hidden) if hidden.abs().mean() > 0.1 else hidden

        norm.__class__ = OtherRMSNorm
    elif change == "offset":

        class OffsetRMSNorm(type(norm)):
            def forward(self, hidden):
                return super().forward(hidden) * (1 + self.weight) / self.weight

        norm.__class__ = OffsetRMSNorm
    elif change == "gated":  # takes what `two_kernel_norm` does not

        class GatedRMSNorm(type(norm)):
            def forward(self, hidden, gate=None):
                return super().forward(hidden) if gate is None else super().forward(hidden) * gate

        norm.__class__ = GatedRMSNorm
    elif change == "picky":  # a kernel for one type of activations

        class PickyRMSNorm(type(norm)):
            def forward(self, hidden):
                if hidden.dtype != torch.float32:
                    raise RuntimeError("no kernel for this type")
                return super().forward(hidden)

        norm.__class__ = PickyRMSNorm
    elif change == "wrapped":
        norm.forward = norm.forward
    else:
        del norm.variance_epsilon
    assert norm not in rms_norms(model)
    assert len(rms_norms(model)) == 6


@pytest.mark.parametrize("error", [ImportError, PermissionError, type("DSLRuntimeError", (Exception,), {})])
def test_a_kernel_that_torch_cannot_compile_leaves_the_modules_as_they_are(error, monkeypatch):
    """On an H100 torch 2.13 takes one of CuTe DSL, whose errors are its own, and which wants a folder to write to."""

    def rms_norm(*_):
        raise error("no kernel")

    monkeypatch.setattr(torch.nn.functional, "rms_norm", rms_norm)
    assert rms_norms(a_model("llama")) == []


@pytest.mark.parametrize("name", TAKEN)
def test_a_grid_is_the_same(name):
    rng = np.random.default_rng(0)
    examples, steering = random_examples(rng, 6), random_steering(rng)
    model = a_model(name)
    wanted = {"completions": True, "read_layers": (1,)}
    expected = Engine(model, path="trie").run(examples, steering, **wanted)
    engine = Engine(model, path="trie")
    engine.forward.norms = rms_norms(model)
    called = []
    engine.forward.norms[0].register_forward_hook(lambda module, *_: called.append(module.forward))
    found = engine.run(examples, steering, **wanted)
    assert {call.func for call in called} == {two_kernel_norm}
    np.testing.assert_allclose(found.logits, expected.logits, atol=2e-5)
    np.testing.assert_allclose(found.completion_logprob, expected.completion_logprob, atol=5e-5)
    np.testing.assert_allclose(found.activations, expected.activations, atol=2e-5)


def test_modules_are_given_back_also_after_an_error():
    model = a_model("llama")
    norms = rms_norms(model)
    for norm in norms:
        norm.register_forward_pre_hook(lambda module, _: vars(module)["forward"] and 1 / 0)
    with pytest.raises(ZeroDivisionError), in_two_kernels(norms):
        model(torch.tensor([[1, 2, 3]]))
    assert not any("forward" in vars(norm) for norm in norms)


def test_a_forward_that_someone_else_replaced_stays():
    """As accelerate does where weights are brought over for each call."""
    norm = rms_norms(a_model("llama"))[0]
    norm.forward = theirs = lambda hidden: hidden
    with in_two_kernels([norm]):
        assert norm.forward is theirs
    assert norm.forward is theirs


def test_trying_the_norms_moves_no_one_elses_draws():
    torch.manual_seed(3)
    expected = torch.randn(3)
    model = a_model("llama")
    torch.manual_seed(3)
    rms_norms(model)
    assert torch.equal(torch.randn(3), expected)
