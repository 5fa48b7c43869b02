"""The five prompt settings, and how one of them becomes the text that a model reads.

`base` asks with the spec's system text; `sys_pos` and `sys_neg` replace that text by a description of the behaviour
or of its opposite; `user_pos` and `user_neg` put the description and a blank line before the question. Rendering
goes through the tokenizer's chat template, with everything pinned that would make it depend on the day.

The package's own descriptions (`descriptions.json`) say what each dataset's matching answers show, which is not
always its name: believes-AIs-are-not-an-existential-threat-to-humanity matches answers that see a threat.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from cache_builder.datasets.loaders import unrepeated
from cache_builder.prompts.templates import TEMPLATES
from steerstats.cache import SETTINGS
from steerstats.errors import ModelError, SpecError

_SYSTEM, _USER, _REPLY = "qsystemq7", "quserq7", "qreplyq7"
_DATE_CALL = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")
_DATE_TEST = re.compile(r"\{#.*?#\}|\bstrftime_now\s+is\s+(not\s+)?defined\b", re.DOTALL)  # and comments
_MARKUP = re.compile(r"\[/?[A-Z_]+\]|<</?[A-Z]+>>|<\|.*?\|>|</?[a-z_]+>|[{}#*:|<>\[\]]")
_THOUGHT = re.compile(r"[<\[]\|?(/|END_|)(?:START_|\w+:)?(?:think|thinking|thoughts?|reasoning)\|?[>\]]", re.IGNORECASE)
_ROLES = {"system", "user", "assistant", "model", "human", "ai", "bot"}


@dataclass(frozen=True, slots=True)
class Description:
    """What a model is told to be: the behaviour, and its opposite."""

    positive: str
    negative: str


def load_descriptions(path: str | Path | None = None) -> dict[str, Description]:
    """Read a table of descriptions.

    Parameters
    ----------
    path : path, optional
        JSON that maps names to `{"positive": ..., "negative": ...}`, bare or under the key `prompts` (the form
        of steering-bench's persona_prompts.json); `bundled:demo/descriptions.json` is the demo's. The package's
        own table for the paper's forty datasets without it.

    Raises
    ------
    SpecError
        Naming file, dataset and field.
    """
    place = "descriptions.json" if path is None else str(path)
    try:
        if place.startswith("bundled:") or path is None:
            inner = place.removeprefix("bundled:").split("/")
            text = resources.files("cache_builder").joinpath(*inner).read_text("utf-8")
        else:
            text = Path(place).expanduser().read_text("utf-8-sig")
        table = json.loads(text, object_pairs_hook=unrepeated)
    except OSError as error:
        raise SpecError(f"prompt.descriptions: {place} cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise SpecError(f"prompt.descriptions: {place} is not JSON ({error})") from error
    if isinstance(table, dict) and isinstance(table.get("prompts"), dict):
        table = table["prompts"]
    if not isinstance(table, dict) or not table:
        raise SpecError(f"prompt.descriptions: {place} must map dataset names to positive and negative descriptions")
    return {name: _description(name, entry, place) for name, entry in table.items()}


def choose_descriptions(
    datasets: Iterable[str], settings: Iterable[str], table: Mapping[str, Description]
) -> dict[str, Description]:
    """The descriptions that a build uses, which are part of its identity.

    Parameters
    ----------
    datasets : iterable of str
        Names, `bundled:demo/NAME` included.
    settings : iterable of str
        With `base` alone none is needed, and none is returned.
    table : mapping of str to Description

    Raises
    ------
    SpecError
        If a dataset has no description and some setting needs one.
    """
    needy = [setting for setting in settings if setting != "base"]
    if not needy:
        return {}
    chosen = {}
    for dataset in datasets:
        name = dataset.rpartition("/")[2] if dataset.startswith("bundled:") else dataset
        if name not in table:
            raise SpecError(
                f"prompt.descriptions: dataset {name!r} has none, and setting {needy[0]} needs it; "
                f'name a file that has it, or set settings = ["base"]'
            )
        chosen[name] = table[name]
    return chosen


class Renderer:
    """Turns a question in a setting into the text of a generation prompt.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    system_text : str or None
        System text of the base and user settings; None or empty for no system turn.
    template : str, optional
        Name of one of our own templates (`templates.TEMPLATES`), for a tokenizer that brings none or to overrule
        its own.
    template_args : mapping, optional
        Passed to the template (`enable_thinking`, ...).
    date : str
        ISO date that templates see as today.
    prefill : str
        What every reply begins with before its answer.

    Raises
    ------
    SpecError
        If there is no template, or none of that name.
    ModelError
        If the template cannot render a user turn, or asks for a date in a way that cannot be pinned.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        system_text: str | None = "You are a helpful, honest and concise assistant.",
        template: str | None = None,
        template_args: Mapping[str, Any] | None = None,
        date: str = "2024-07-01",
        prefill: str = "",
    ) -> None:
        self.tokenizer = tokenizer
        self.system_text = system_text or None
        self.template_name = template or "tokenizer"
        self.template_args = dict(template_args or {})
        self.prefill = prefill
        own_bos = _adds_bos(tokenizer)
        source = _find_template(tokenizer, template)
        self._template = pin_date(source, date)
        self.dated = self._template != source
        self._extra = dict(self.template_args)
        if template is not None:
            self._extra.setdefault("add_bos", own_bos)
        self.folds_system = not self._takes_system_role()
        notes = [
            f"the chat template has no {name!r}: prompt.template_args.{name} changes nothing"
            for name in self.template_args
            if not re.search(rf"\b{re.escape(name)}\b", source)
        ]
        if self.folds_system:
            notes.append("the chat template has no system role: system text is put before the user text")
        if self.dated:
            notes.append(f"the chat template asks for the date, pinned to {date}")
        frame = self._frame()
        self.injected = self._find_injected(frame)
        if self.injected:
            notes.append(f"the chat template adds text of its own: {self.injected!r}")
        if own_bos and not frame.lstrip().startswith(str(tokenizer.bos_token)):
            notes.append("the tokenizer would add a BOS token, but the chat template writes none: there is none")
        if prefill:
            notes.append(f"every reply begins with {prefill!r} (prompt.prefill), and its answer comes after that")
        thoughts = list(_THOUGHT.finditer(frame.rpartition(_USER)[2] + prefill))
        # one of our own ends where the answer begins, and knows no replies
        begun = self._begun_reply(frame) if template is None else ""
        if thoughts and not thoughts[-1][1]:
            notes.append(
                f"prompts end in an open {thoughts[-1][0]} block, so that answers are scored as thoughts and not as "
                "the reply; prompt.template_args may close it (often enable_thinking = false), or prompt.prefill"
            )
        elif begun.strip(" ") and not prefill.startswith(begun):
            notes.append(
                f"prompts end before {begun!r}, with which the chat template begins a reply, so that answers are "
                f"scored where the model would write that; set prompt.prefill = {json.dumps(begun)}"
            )
        elif not thoughts and self._could_close_thoughts(source):
            notes.append(
                "the chat template lets the model think before its reply, so that answers are scored where thoughts "
                "may begin; prompt.template_args.enable_thinking = false ends prompts in an empty thought"
            )
        self.notes = tuple(notes)
        self.template_sha256 = hashlib.sha256(source.encode()).hexdigest()

    @classmethod
    def of_prompt(cls, tokenizer: Any, prompt: Any) -> Renderer:
        """The renderer that a spec's `prompt` table asks for."""
        names = ("system_text", "template", "template_args", "date", "prefill")
        return cls(tokenizer, **{name: getattr(prompt, name) for name in names})

    def render(self, setting: str, text: str, description: Description | None = None) -> str:
        """The generation prompt of one question.

        Parameters
        ----------
        setting : str
            One of `SETTINGS`.
        text : str
            The user turn of the base setting.
        description : Description, optional
            Of the dataset; every setting but `base` needs it.

        Returns
        -------
        str
            Up to and including what precedes the answer. Tokenise it with `add_special_tokens=False`.

        Raises
        ------
        ModelError
            If the template does not reproduce the text.
        """
        system, user = place_description(setting, text, description, self.system_text)
        if system and self.folds_system:
            system, user = None, f"{system}\n\n{user}"
        messages = [{"role": "system", "content": system}] if system else []
        rendered = self._render([*messages, {"role": "user", "content": user}])
        for part in filter(None, (system, user)):
            if part.strip() not in rendered:
                raise ModelError(f"the chat template ({self.template_name}) changes or drops the text {part[:60]!r}")
        return rendered + self.prefill

    def identity(self) -> dict[str, Any]:
        """What decides the rendered text beside the spec's own fields; for the spec's hash."""
        return {"template_sha256": self.template_sha256, "folds_system": self.folds_system}

    def describe(self) -> dict[str, Any]:
        """All that is known about the rendering, as plain JSON types; for provenance."""
        return self.identity() | {
            "template": self.template_name,
            "template_args": self.template_args,
            "injected": self.injected,
            "notes": list(self.notes),
        }

    def _render(self, messages: list[dict[str, str]], ask: bool = True, **more: Any) -> str:
        try:
            return self.tokenizer.apply_chat_template(
                messages,
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=ask,
                **(self._extra | more),
            )
        except Exception as error:  # a template is a program, and fails as programs do
            what = " ".join(f"{error}".split()) or type(error).__name__
            raise ModelError(f"the chat template ({self.template_name}) cannot render this prompt: {what}") from error

    def _takes_system_role(self) -> bool:
        try:
            rendered = self._render([{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}])
        except ModelError:
            # a template that refuses the role; one that cannot even render a user turn fails here and now
            self._render([{"role": "user", "content": _USER}])
            return False
        return _SYSTEM in rendered and _USER in rendered

    def _frame(self, *reply: dict[str, str], **more: Any) -> str:
        given = self.system_text is not None and not self.folds_system
        messages = [{"role": "system", "content": _SYSTEM}] if given else []
        return self._render([*messages, {"role": "user", "content": _USER}, *reply], ask=not reply, **more)

    def _begun_reply(self, frame: str) -> str:
        """What stands between prompt and reply where a reply is given: an empty thought, a channel, a line break."""
        try:
            before, found, _ = self._frame({"role": "assistant", "content": _REPLY}).partition(_REPLY)
        except ModelError:
            return ""
        return before.removeprefix(frame) if found and before.startswith(frame) else ""

    def _could_close_thoughts(self, source: str) -> bool:
        """Whether prompts would end in a thought, an empty one, if the switch of Qwen3 and its kin were off."""
        if "enable_thinking" not in source or "enable_thinking" in self._extra:
            return False
        return bool(_THOUGHT.search(self._frame(enable_thinking=False).rpartition(_USER)[2]))

    def _find_injected(self, frame: str) -> str:
        for marker in (_SYSTEM, _USER, *sorted(map(str, self.tokenizer.get_added_vocab()), key=len, reverse=True)):
            frame = frame.replace(marker, " ")
        words = _MARKUP.sub(" ", frame).split()
        # role names at the ends are the frame, not a text; so is a single word such as "Answer"
        while words and words[0].casefold() in _ROLES:
            words = words[1:]
        while words and words[-1].casefold() in _ROLES:
            words = words[:-1]
        return " ".join(words) if len(words) > 1 else ""


def place_description(
    setting: str, text: str, description: Description | None, system_text: str | None
) -> tuple[str | None, str]:
    """System text and user text of a question in one setting.

    Raises
    ------
    SpecError
        If the setting is not one of the five, or needs a description and gets none.
    """
    if setting not in SETTINGS:
        raise SpecError(f"settings: {setting!r} is not one of {', '.join(SETTINGS)}")
    if setting == "base":
        return system_text, text
    if description is None:
        raise SpecError(f"settings: {setting} needs a description of the behaviour")
    where, _, sign = setting.partition("_")
    said = description.positive if sign == "pos" else description.negative
    return (said, text) if where == "sys" else (system_text, f"{said}\n\n{text}")


def pin_date(template: str, date: str) -> str:
    """Replace every call of `strftime_now` in a chat template by what it would give on a fixed day.

    Raises
    ------
    ModelError
        If a call's format is not a literal, or the function goes by another name: such a template would change its
        prompts overnight.
    """
    try:
        day = datetime.date.fromisoformat(date)
    except ValueError as error:
        raise SpecError(f"prompt.date: {date!r} is not a date ({error})") from error
    pinned = _DATE_CALL.sub(lambda call: json.dumps(day.strftime(call[2])), template)
    if "strftime_now" in _DATE_TEST.sub("", pinned):
        raise ModelError("the chat template computes today's date in a way that cannot be pinned; name prompt.template")
    return pinned


def _description(name: str, entry: Any, place: str) -> Description:
    where = f"prompt.descriptions: {place}, {name}"
    if not isinstance(entry, dict):
        raise SpecError(f"{where}: must hold the fields 'positive' and 'negative', not {entry!r}")
    for key in ("positive", "negative"):
        value = entry.get(key)
        if not isinstance(value, str) or not value.strip():
            raise SpecError(f"{where}: field '{key}' {'must be text' if key in entry else 'is missing'}")
        if re.search("[\ud800-\udfff]", value):  # half a surrogate pair, which JSON can spell and no tokenizer reads
            raise SpecError(f"{where}: field '{key}' holds half a character, which is no text ({value!r})")
    return Description(entry["positive"], entry["negative"])


def _find_template(tokenizer: Any, name: str | None) -> str:
    if name is not None:
        if name not in TEMPLATES:
            raise SpecError(f"prompt.template: {name!r} is not known; there are {', '.join(TEMPLATES)}")
        return TEMPLATES[name]
    given = getattr(tokenizer, "chat_template", None)
    if isinstance(given, dict):  # several under names, of which the one for plain chat is called so
        what = f"of its chat templates ({', '.join(sorted(given))}) none is called default"
        given = given.get("default")
    else:
        what = "this tokenizer has no chat template"
    if not given:
        raise SpecError(f"prompt.template: {what}; name one of {', '.join(TEMPLATES)}")
    return given


def _adds_bos(tokenizer: Any) -> bool:
    if tokenizer.bos_token_id is None:
        return False
    ids = tokenizer("a")["input_ids"]
    return bool(ids) and ids[0] == tokenizer.bos_token_id
