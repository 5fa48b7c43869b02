"""A CUDA device that is not there: every operation's shapes, dtypes and devices, and no values.

Torch's fake tensors take any device's name, run each operation's rules (two devices in one operation are an error, and
so is a number that the host has to know) and hold no data. What has to be replaced is little: the pinned memory, the
events of a real driver, and indexing, which asks for that driver before the rules are reached. A question of the
model's own code to its device is written down, and answered.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import transformers
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.utils import import_utils

from cache_builder.engine import answer, forward, norms, operators, rope

aten = torch.ops.aten


@dataclass
class Waits:
    """What would have made the host wait for the device: the engine's code, and the model's own."""

    engine: list[str] = field(default_factory=list)
    model: list[str] = field(default_factory=list)


@contextmanager
def fake_cuda(monkeypatch) -> Iterator[Waits]:
    """While active, tensors on "cuda" can be made and computed with. Gives what would have made the host wait."""
    waits = Waits()
    for module in (operators, forward):
        monkeypatch.setattr(module, "to_device", _to_device)
    # Without values nothing can be tried; Gemma's are the ones among the tiny models that are something else.
    monkeypatch.setattr(norms, "_is", lambda module: "Gemma" not in type(module).__name__)
    monkeypatch.setattr(rope, "_is", lambda place, device: True)
    monkeypatch.setattr(answer, "_to_pinned", lambda tensor: tensor)
    monkeypatch.setattr(answer.Transfer, "arrays", lambda self: [_zeros(one) for one in self.tensors])
    # Where transformers sees a fake tensor it takes itself to be compiled, and does not ask what it asks on a GPU.
    monkeypatch.setattr(import_utils, "is_fake_tensor", lambda tensor: False)
    monkeypatch.setattr(torch.cuda, "Event", _Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: device)
    with FakeTensorMode(allow_non_fake_inputs=True), _Indexing(waits), _Watch(waits):
        yield waits


def fill_with_fakes(model: torch.nn.Module, dtype: torch.dtype, place) -> None:
    """A model with fake tensors put into it, inside `fake_cuda`; `place` gives the device of a parameter by its name.

    Buffers stay in float32, as when a model is loaded.
    """
    for path, module in model.named_modules():
        for kind, held in (("parameter", module._parameters), ("buffer", module._buffers)):
            for name, tensor in held.items():
                if tensor is None:
                    continue
                keep = kind == "buffer" or not tensor.is_floating_point()
                fake = torch.empty(tensor.shape, dtype=tensor.dtype if keep else dtype, device=place(f"{path}.{name}"))
                held[name] = fake if kind == "buffer" else torch.nn.Parameter(fake, requires_grad=False)


class _Event:
    def record(self, stream=None) -> None:
        """Nothing runs; a stream is known by its device."""
        self.stream = stream

    def synchronize(self) -> None:
        """Nothing is waited for."""


class _Watch(TorchDispatchMode):
    """Writes down what would make the host wait: copies to it, copies and indices from it that block, questions."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _QUESTIONS and _by_model():
            self.waits.model.append(_where(func))
            return False  # of masks: there is padding
        _check(func, (*args, *kwargs.values()))
        out = func(*args, **kwargs)
        if isinstance(out, torch.Tensor) and args and isinstance(args[0], torch.Tensor):
            way = args[0].device.type, out.device.type
            blocks = not any(one is True for one in (*args, *kwargs.values()))  # `non_blocking`
            brought = way == ("cuda", "cuda") and torch.device("cpu") in _index_places(func, args)
            if way == ("cuda", "cpu") or (way == ("cpu", "cuda") and blocks) or brought:
                (self.waits.model if _by_model() else self.waits.engine).append(_where(func))
        return out


class _Indexing(TorchFunctionMode):
    """Bindings that look for a device's driver, in terms of operations that do not."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.__getitem__:
            return _getitem(*args)
        if func is torch.Tensor.__setitem__:
            return _setitem(*args)
        if func is torch.tensor and isinstance(args[0], float) and _by_model():  # transformers 5.17, of eager masks
            self.waits.model.append(_where(func))
            return torch.full((), *args, **(kwargs or {}))
        if func is torch.Tensor.contiguous:
            return aten.clone(args[0], memory_format=torch.contiguous_format)
        return func(*args, **(kwargs or {}))


_QUESTIONS = (aten.is_nonzero.default, aten.item.default, aten._local_scalar_dense.default)
_OF_ONE_TYPE = (
    *(aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.matmul, aten.linear),
    *(aten.scaled_dot_product_attention, aten.index_copy_),
)
_TORCH, _TRANSFORMERS = (str(Path(package.__file__).parent) for package in (torch, transformers))


def _by_model() -> bool:
    """Whether the nearest code is that of transformers, but for torch's, this file's and a mode's of the engine, which
    stands between a model and its attention."""
    frame = sys._getframe(2)
    while (code := frame.f_code).co_filename.startswith((_TORCH, __file__)) or code.co_name == "__torch_function__":
        frame = frame.f_back
    return code.co_filename.startswith(_TRANSFORMERS)


def _where(func) -> str:
    return f"{func}\n{''.join(traceback.format_stack(limit=14))}"


def _check(func, args) -> None:
    """Rules of the kernels that fake tensors leave out."""
    for place in _index_places(func, args):
        if place.type != "cpu" and place != args[0].device:
            raise RuntimeError(f"indices on devices {place} of a tensor on {args[0].device}")
    tensors = [one for one in args if isinstance(one, torch.Tensor)]
    kinds = {one.dtype for one in tensors if one.is_floating_point()}
    if func.overloadpacket in _OF_ONE_TYPE and len(kinds) > 1:
        raise RuntimeError(f"{func} of several types: {kinds}")


def _index_places(func, args) -> set[torch.device]:
    indexes = func in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
    return {one.device for one in args[1] if one is not None} if indexes else set()


def _getitem(tensor: torch.Tensor, index) -> torch.Tensor:
    index = index if isinstance(index, tuple) else (index,)
    rest = tensor.dim() - sum(one is not None and one is not Ellipsis for one in index)
    index = [one for part in index for one in ([slice(None)] * rest if part is Ellipsis else [part])]
    axis, gathered = 0, {}
    for one in index:
        if isinstance(one, int):
            tensor = tensor.select(axis, one)
            continue
        if one is None:
            tensor = tensor.unsqueeze(axis)
        elif isinstance(one, slice):
            tensor = aten.slice(tensor, axis, one.start, one.stop, one.step or 1)
        else:
            gathered[axis] = torch.as_tensor(one)
        axis += 1
    return aten.index(tensor, [gathered.get(i) for i in range(max(gathered) + 1)]) if gathered else tensor


def _setitem(tensor: torch.Tensor, index, value) -> None:
    index = index if isinstance(index, tuple) else (index,)
    aten.index_put_(tensor, list(index), value.to(tensor.dtype))


def _to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    # Not a copy: of arrays with one element the values are kept, and would really be copied.
    return torch.empty(array.shape, dtype=torch.from_numpy(array[:0]).dtype, device=device)


def _zeros(tensor: torch.Tensor | None) -> np.ndarray | None:
    return None if tensor is None else np.zeros(tuple(tensor.shape), {torch.float32: np.float32}[tensor.dtype])
