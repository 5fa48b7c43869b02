"""Loading a model and its tokenizer: pinned, without remote code, with the facts that a cache has to record."""

from __future__ import annotations

import hashlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import transformers

from cache_builder.memory import SMALLER, fits, out_of_memory
from steerstats.errors import InputError, ModelError, require

BUNDLED = "bundled:"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# What config.json says of where and with what it was written, of training, and of what a call returns; the dtype is
# an argument of ours.
NO_NUMBERS = {
    "_name_or_path", "architectures", "dtype", "initializer_range", "output_attentions", "output_hidden_states",
    "return_dict", "torch_dtype", "transformers_version", "use_cache",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model ready for the engine.

    Parameters
    ----------
    model, tokenizer
        As transformers returns them, in evaluation mode.
    id : str
        As it was asked for.
    revision : str or None
        Commit that was really loaded; None for a local directory.
    dtype, attention, device : str
        As resolved.
    weights_hash, tokenizer_hash, template_hash : str
        SHA-256 of the weight files, of the tokenizer's definition, and of its chat template ("" without one).
    config_hash, special_tokens_hash : str
        SHA-256 of what config.json says of the numbers, and of the special tokens that the chat template sees.
    quantisation : mapping or None
        What bitsandbytes was asked for here; None for weights as they are in their files.
    """

    model: Any
    tokenizer: Any
    id: str
    revision: str | None
    dtype: str
    attention: str
    device: str
    weights_hash: str
    tokenizer_hash: str
    template_hash: str
    config_hash: str
    special_tokens_hash: str
    quantisation: dict[str, Any] | None = None

    def provenance(self) -> dict[str, object]:
        """Everything but the two objects, as plain values for JSON."""
        names = [name for name in self.__dataclass_fields__ if name not in ("model", "tokenizer")]
        return {name: getattr(self, name) for name in names} | {
            "architecture": str(getattr(self.model.config, "model_type", "")),
            "parameters": self.model.num_parameters(),  # also of four bits, of which two share a byte
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }


def load_model(
    model_id: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    attention: str = "auto",
    device: str = "auto",
    device_map: str | dict | None = None,
    load_in_8bit: bool = False,
    load_in_4bit: bool = False,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a causal language model and its tokenizer.

    Parameters
    ----------
    model_id : str
        A hub id, a local directory, or `bundled:demo/model` for one that ships with this package.
    revision : str, optional
        Branch, tag or commit; the commit that it resolves to is recorded.
    dtype : str
        "float32", "bfloat16", "float16", or "auto": bfloat16 on CUDA, float32 elsewhere.
    attention : str
        An attention implementation of transformers, or "auto": SDPA where the model has it and keeps its
        soft-capping (not Gemma-2 or VaultGemma), eager otherwise.
    device : str
        "auto": CUDA, else MPS, else CPU.
    device_map : optional
        Passed on, for models larger than one device ("auto", "balanced", ...); then `device` is not used.
    load_in_8bit, load_in_4bit : bool
        Quantised by bitsandbytes: LLM.int8 (Dettmers et al. 2022, arXiv 2208.07339), or NF4 (Dettmers et al. 2023,
        arXiv 2305.14314), which loses less of normally distributed weights than the library's own default (FP4).
    trust_remote_code : bool
        Off unless the user says otherwise.

    Raises
    ------
    ModelError
        If there is no such model, it is not a causal language model, or its files are damaged or lack weights.
    MissingDependency
        If bitsandbytes or accelerate is needed and not installed.
    """
    place = resolve(model_id)
    device = pick_device(device)
    resolved = pick_dtype(dtype, device)
    common = {"revision": revision, "trust_remote_code": trust_remote_code}
    options: dict[str, Any] = {"dtype": DTYPES[resolved]}
    quantisation = _quantisation(load_in_8bit, load_in_4bit, resolved)
    if quantisation is not None:
        require("bitsandbytes", "quantised", "8-bit and 4-bit loading")
        options["quantization_config"] = transformers.BitsAndBytesConfig(**quantisation)
    if device_map is not None or quantisation is not None:
        require("accelerate", "build", "device_map")
        options["device_map"] = device_map or {"": device}
    try:
        config = transformers.AutoConfig.from_pretrained(place, **common)
        if getattr(config, "is_encoder_decoder", False):  # of some, transformers would load half without a word
            raise ModelError(f"it is an encoder-decoder ({config.model_type}), and not a causal language model")
        tokenizer = load_tokenizer(place, **common)
        model = _load_with_attention(place, config, attention, {**common, **options})
    except Exception as error:  # damaged files raise bare Exceptions of the Rust libraries
        if out_of_memory(error):
            raise ModelError(f"model {model_id!r} in {resolved} does not fit in memory; {SMALLER}") from error
        raise ModelError(f"model {model_id!r} cannot be loaded: {why_not(error, place)}") from error
    if "device_map" not in options:
        with fits(lambda: f"model {model_id!r} in {resolved} does not fit in the memory of {device}; {SMALLER}"):
            model = model.to(device)
    commit = getattr(model.config, "_commit_hash", None)
    return LoadedModel(
        model=model.eval(),
        tokenizer=tokenizer,
        id=model_id,
        revision=commit,
        dtype=resolved,
        attention=str(model.config.get_text_config()._attn_implementation),
        device=str(device_map or device),
        weights_hash=hash_weights(place, revision=commit),
        tokenizer_hash=hash_tokenizer(tokenizer),
        template_hash=hash_text(_template(tokenizer)),
        config_hash=hash_config(place, revision=commit, code=trust_remote_code),
        special_tokens_hash=hash_text(json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str)),
        quantisation=quantisation,
    )


def _quantisation(load_in_8bit: bool, load_in_4bit: bool, dtype: str) -> dict[str, Any] | None:
    """Arguments of bitsandbytes' configuration, as plain values."""
    if load_in_8bit:
        return {"load_in_8bit": True}
    if load_in_4bit:
        return {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    return None


def quiet_libraries() -> None:
    """Leave the terminal to us: one progress display, and one line for what goes wrong."""
    # It says at every layer of every pass that LLM.int8 computes in float16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    hub_logging.set_verbosity_error()


def resolve(model_id: str) -> str:
    """The directory of a bundled or local model, or the hub id unchanged.

    Raises
    ------
    ModelError
        If a path is given and nothing is there.
    """
    if model_id.startswith(BUNDLED):
        folder = Path(str(files("cache_builder"))).joinpath(*model_id.removeprefix(BUNDLED).split("/"))
        if not (folder / "config.json").is_file():
            raise ModelError(f"model {model_id!r}: nothing of that name is bundled ({folder.name}/config.json missing)")
        return str(folder)
    path = Path(model_id).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"model {model_id!r}: the directory holds no config.json")
        return str(path)
    if model_id.startswith((".", "/", "~")):
        raise ModelError(f"model {model_id!r}: no such directory")
    return model_id


def why_not(error: BaseException, place: str) -> str:
    """A library's reason in one line; where `resolve` took the model for a hub id, that it is no directory either."""
    if Path(place).is_dir():
        return _first_line(error)
    return f"{_first_line(error).rstrip('.')}; no directory of that name is there either"


def pick_device(device: str) -> str:
    """CUDA, else MPS, else CPU for "auto"; anything else is checked and returned."""
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        asked = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device {device!r} is not one that torch knows (auto, cpu, cuda, cuda:1, mps)") from error
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked.type == "cuda" and (asked.index or 0) >= there:
        raise ModelError(f"device {device!r} asked for, but torch sees {there or 'no'} CUDA device{'s' * (there > 1)}")
    return device


def pick_dtype(dtype: str, device: str) -> str:
    """bfloat16 on CUDA and float32 elsewhere for "auto"; anything else is checked and returned."""
    if dtype == "auto":
        return "bfloat16" if torch.device(device).type == "cuda" else "float32"
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} is not one of auto, {', '.join(DTYPES)}")
    return dtype


def hash_weights(place: str, *, revision: str | None = None) -> str:
    """SHA-256 over the names and contents of a model's weight files.

    Files in the hub's own cache are stored under the SHA-256 of their content, which is taken as it stands. All others
    are read anew at every start, several at a time: size and time of a file do not prove what is in it.
    """
    folder = _folder(place, revision)
    if folder is None:
        return ""
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    digest = hashlib.sha256()
    with ThreadPoolExecutor(max_workers=4) as pool:
        for path, found in zip(weights, pool.map(_file_hash, weights)):
            digest.update(f"{path.name}\0{found}\n".encode())
    return digest.hexdigest() if weights else ""


def hash_config(place: str, *, revision: str | None = None, code: bool = False) -> str:
    """SHA-256 of a model's config.json without `NO_NUMBERS`, and with `code` of the Python files beside it.

    The file and not the loaded configuration, to which each version of transformers adds defaults of its own.
    """
    folder = _folder(place, revision)
    if folder is None:
        return ""
    config = _numbers(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    files = {path.name: _file_hash(path) for path in folder.glob("*.py")} if code else {}
    return hash_text(json.dumps([config, files] if files else config, sort_keys=True))


def load_tokenizer(place: str, **options: Any) -> Any:
    """The tokenizer of a model's files in the hub's own format.

    Where mistral-common is installed, as vLLM has it, transformers would read Mistral's format instead: a tokenizer
    that has no chat template, and another one than on a machine without that package.
    """
    return transformers.AutoTokenizer.from_pretrained(place, mistral_format=False, **options)


def hash_tokenizer(tokenizer: Any) -> str:
    """SHA-256 of a tokenizer's full definition (fast), or of its vocabulary and special tokens (slow)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # No part of the definition, but of how it is applied: whether `<|user|>` in a text is one token.
        split = "split_special_tokens" if getattr(tokenizer, "split_special_tokens", False) else ""
        return hash_text(backend.to_str() + split)
    facts = [sorted(tokenizer.get_vocab().items()), sorted(map(str, tokenizer.special_tokens_map.items()))]
    return hash_text(json.dumps(facts))


def hash_text(text: str) -> str:
    """SHA-256 of a text; "" for an empty one."""
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def _folder(place: str, revision: str | None) -> Path | None:
    """Where a model's files lie: the directory itself, or the hub's own cache."""
    if Path(place).is_dir():
        return Path(place)
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(place, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def _numbers(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without `NO_NUMBERS`, in the configurations of its parts as well."""
    kept = {name: value for name, value in config.items() if name not in NO_NUMBERS}
    return {
        name: _numbers(value) if isinstance(value, dict) and "model_type" in value else value
        for name, value in kept.items()
    }


def _load_whole(place: str, **options: Any) -> Any:
    """The model with all of its weights: those that its files lack, transformers draws at random, with a warning."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(place, output_loading_info=True, **options)
    names = [name for name, _ in model.named_parameters()]
    missing = [name for name in names if name in info["missing_keys"]]
    if missing:
        raise ModelError(f"its files lack {len(missing)} of {len(names)} weights, such as {missing[0]}")
    return model


def _load_with_attention(place: str, config: Any, attention: str, options: dict[str, Any]) -> Any:
    text = config.get_text_config()
    capped = text.model_type == "gemma2" or getattr(text, "attn_logit_softcapping", None) is not None
    # SDPA has no soft-capping of attention scores: older versions of transformers leave it out without a word.
    if attention == "sdpa" and capped:
        raise ModelError(f'attention = "sdpa" would leave out the soft-capping of {text.model_type}; take "eager"')
    if attention != "auto":
        return _load_whole(place, attn_implementation=attention, **options)
    if capped:
        return _load_whole(place, attn_implementation="eager", **options)
    try:
        return _load_whole(place, attn_implementation="sdpa", **options)
    except ValueError as error:
        if "scaled_dot_product" not in str(error) and "sdpa" not in str(error):
            raise
        return _load_whole(place, attn_implementation="eager", **options)


def _template(tokenizer: Any) -> str:
    template = getattr(tokenizer, "chat_template", None) or ""
    return template if isinstance(template, str) else json.dumps(template, sort_keys=True)


def _file_hash(path: Path) -> str:
    target = path.resolve()
    if target.parent.name == "blobs" and len(target.name) == 64:
        return target.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
