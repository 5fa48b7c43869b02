"""Steering the slow, plain way: one sequence, one vector, one multiplier per pass. The oracle of the engine's tests."""

from __future__ import annotations

import numpy as np
import torch

from cache_builder.engine import Example, Steering


def blocks(model) -> list[torch.nn.Module]:
    """Decoder blocks, by name rather than by the engine's search."""
    paths = ("model.layers", "transformer.h", "gpt_neox.layers", "model.decoder.layers", "backbone.layers")
    for path in (*paths, "model.language_model.layers"):
        module = model
        for part in path.split("."):
            module = getattr(module, part, None)
            if module is None:
                break
        if module is not None:
            return list(module)
    raise AssertionError(type(model))


def steer(hidden: np.ndarray, vector: np.ndarray, x: float, operator: str) -> np.ndarray:
    """The operator's formula in float64 on one activation."""
    if operator == "add":
        return hidden + x * vector
    unit = vector / np.linalg.norm(vector)
    if operator == "add_keep_norm":
        moved = hidden + x * vector
        return moved / np.linalg.norm(moved) * np.linalg.norm(hidden)
    without = hidden - (hidden @ unit) * unit
    return (1 - x) * hidden + x * without if operator == "ablate" else without + x * vector


@torch.inference_mode()
def logits_of(model, ids, steered: range, by_layer: dict[int, np.ndarray], x: float, operator: str) -> np.ndarray:
    """Logits (n_tokens, vocabulary) of one steered sequence."""
    handles = []
    for layer, vector in by_layer.items():

        def hook(module, args, output, vector=vector):
            hidden = (output[0] if isinstance(output, tuple) else output).clone()
            for t in steered:
                if t < hidden.shape[1]:
                    hidden[0, t] = torch.from_numpy(steer(hidden[0, t].double().numpy(), vector, x, operator)).float()
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handles.append(blocks(model)[layer].register_forward_hook(hook))
    try:
        return model(input_ids=torch.tensor(ids)[None], use_cache=False).logits[0].double().numpy()
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def block_outputs(model, ids) -> list[np.ndarray]:
    """Output (n_tokens, hidden) of every decoder block, unsteered."""
    outputs = []

    def keep(module, args, output):
        outputs.append((output[0] if isinstance(output, tuple) else output).squeeze(0).numpy())

    handles = [block.register_forward_hook(keep) for block in blocks(model)]
    model(input_ids=torch.tensor(ids)[None])
    for handle in handles:
        handle.remove()
    return outputs


def cell(model, example: Example, steering: Steering, vector: int, x: float) -> dict[str, np.ndarray]:
    """Everything that `Scores` holds for one example, vector and multiplier: arrays over options."""
    n = max(len(ids) for ids in example.options)
    steered = {
        "last_prompt": range(example.prompt - 1, n),
        "first_answer": range(example.prompt, n),
        "all": range(n),
        "prompt": range(example.prompt),
    }[steering.scope]
    by_layer = {
        int(layer): np.asarray(direction, dtype=np.float64)
        for layer, direction in zip(steering.layers[vector], steering.directions[vector])
    }
    out = {"logits": [], "logsumexp": [], "completion_logit": [], "completion_logprob": []}
    for ids in example.options:
        logits = logits_of(model, ids, steered, by_layer, x, steering.operator)
        total = np.log(np.exp(logits).sum(-1))
        own = np.array([logits[t - 1, ids[t]] for t in range(1, len(ids))])
        answer = slice(example.prompt - 1, None)
        out["logits"].append(own[example.branch - 1])
        out["logsumexp"].append(total[example.branch - 1])
        out["completion_logit"].append(own[answer].sum())
        out["completion_logprob"].append((own - total[:-1])[answer].sum())
    return {name: np.array(values) for name, values in out.items()}


def grid(model, examples, steering: Steering) -> dict[str, np.ndarray]:
    """The same for all examples and codes, (n_examples, n_codes, n_options); code 0 is the bare model."""
    shape = (len(examples), steering.n_codes, len(examples[0].options))
    result = {
        name: np.full(shape, np.nan) for name in ("logits", "logsumexp", "completion_logit", "completion_logprob")
    }
    bare = Steering(np.zeros_like(steering.directions), steering.layers, [0.0], scope=steering.scope)
    for i, example in enumerate(examples):
        todo = [(0, bare, 0, 0.0)]
        for vector, j in np.argwhere(steering.codes > 0):
            todo.append((steering.codes[vector, j], steering, vector, float(steering.multipliers[j])))
        for code, how, vector, x in todo:
            for name, values in cell(model, example, how, vector, x).items():
                result[name][i, code] = values
    return result
