"""The five settings, their descriptions, and what a chat template makes of them."""

from __future__ import annotations

import datetime
import json
import tomllib

import pytest
from paper_data import PERSONA_PROMPTS, needs_data
from tiny_tokenizers import DATED, INJECTING, NO_SYSTEM, WITH_SYSTEM, byte_level, words

from cache_builder.datasets import paper_datasets
from cache_builder.prompts.settings import (
    SETTINGS,
    Description,
    Renderer,
    choose_descriptions,
    load_descriptions,
    pin_date,
)
from cache_builder.prompts.templates import TEMPLATES
from steerstats.errors import ModelError, SpecError

SAID = Description("You are good.", "You are bad.")
SYSTEM = "You are a helpful, honest and concise assistant."


def test_our_own_table_describes_the_forty_datasets_and_their_opposites():
    table = load_descriptions()
    assert set(table) == set(paper_datasets())
    texts = [text for d in table.values() for text in (d.positive, d.negative)]
    assert all(text == text.strip() and text.endswith(".") for text in texts)
    assert len(set(texts)) == 2 * len(table) - 2  # the two halves of the sycophancy set share theirs


@needs_data
def test_the_official_table_is_read_and_ours_is_not_a_copy_of_it():
    official, ours = load_descriptions(PERSONA_PROMPTS), load_descriptions()
    assert choose_descriptions(paper_datasets(), SETTINGS, official)["openness"].negative.startswith("You are low in")
    for name, description in ours.items():
        assert {description.positive, description.negative}.isdisjoint(
            {official[name].positive, official[name].negative}
        )


def test_a_bare_table_is_read_and_a_malformed_one_named(tmp_path):
    path = tmp_path / "d.json"
    path.write_text('{"mine": {"positive": "P.", "negative": "N."}}')
    assert load_descriptions(path) == {"mine": Description("P.", "N.")}
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_descriptions(path) == {"mine": Description("P.", "N.")}, "with a byte order mark, too"
    path.write_text('{"mine": {"positive": "P."}}')
    with pytest.raises(SpecError, match=r"prompt\.descriptions: .*d\.json, mine: field 'negative' is missing"):
        load_descriptions(path)
    path.write_text("[1")
    with pytest.raises(SpecError, match="is not JSON"):
        load_descriptions(path)
    path.write_text('{"mine": {"positive": "P.", "negative": "N."}, "mine": {"positive": "O.", "negative": "M."}}')
    with pytest.raises(SpecError, match=r'prompt\.descriptions: .*d\.json is not JSON \(field "mine" is there twice\)'):
        load_descriptions(path)
    path.write_text("[" * 100000)
    with pytest.raises(SpecError, match=r"is not JSON \(maximum recursion depth"):
        load_descriptions(path)
    path.write_text("[]")
    with pytest.raises(SpecError, match="must map dataset names"):
        load_descriptions(path)
    with pytest.raises(SpecError, match=r"prompt\.descriptions: .*none\.json cannot be read"):
        load_descriptions(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"positive": "P."}, r"mine: field 'negative' is missing$"),
        ({"positive": " ", "negative": "N."}, r"mine: field 'positive' must be text$"),
        ({"positive": "P.", "negative": 3}, r"mine: field 'negative' must be text$"),
        ({"positive": "P.", "negative": "N\ud83d"}, r"mine: field 'negative' holds half a character, which is no text"),
        ("P.", r"mine: must hold the fields 'positive' and 'negative', not 'P\.'$"),
    ],
)
def test_a_description_that_lacks_something_is_told_what(tmp_path, entry, message):
    (tmp_path / "d.json").write_text(json.dumps({"mine": entry}))
    with pytest.raises(SpecError, match=message):
        load_descriptions(tmp_path / "d.json")


def test_a_dataset_without_a_description_needs_the_base_setting_alone():
    assert choose_descriptions(["mine"], ["base"], {}) == {}
    assert choose_descriptions(["bundled:demo/mine"], ["sys_pos"], {"mine": SAID}) == {"mine": SAID}
    with pytest.raises(SpecError, match=r"dataset 'mine' has none, and setting sys_pos needs it"):
        choose_descriptions(["mine"], ["base", "sys_pos"], {})


@pytest.mark.parametrize(
    ("setting", "system", "user"),
    [
        ("base", SYSTEM, "Q?"),
        ("sys_pos", "You are good.", "Q?"),
        ("sys_neg", "You are bad.", "Q?"),
        ("user_pos", SYSTEM, "You are good.\n\nQ?"),
        ("user_neg", SYSTEM, "You are bad.\n\nQ?"),
    ],
)
def test_where_each_setting_puts_the_description(setting, system, user):
    rendered = Renderer(byte_level()).render(setting, "Q?", SAID)
    assert rendered == f"<s><system>\n{system}\n<user>\n{user}\n<assistant>\n"
    folded = Renderer(byte_level(NO_SYSTEM))
    assert folded.render(setting, "Q?", SAID) == f"<s><user>\n{system}\n\n{user}\n<assistant>\n"
    assert folded.folds_system
    assert any("no system role" in note for note in folded.notes)


def test_an_ordinary_template_leaves_nothing_to_note():
    renderer = Renderer(byte_level())
    assert (renderer.notes, renderer.injected, renderer.folds_system) == ((), "", False)


def test_a_template_that_swallows_the_system_text_is_folded_too():
    silent = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    renderer = Renderer(byte_level(silent))
    assert renderer.render("sys_neg", "Q?", SAID) == "You are bad.\n\nQ?"


def test_injected_system_text_is_recorded_where_it_appears():
    assert Renderer(byte_level(INJECTING)).injected == ""
    bare = Renderer(byte_level(INJECTING), system_text="")
    assert bare.injected == "You are Tiny, made by Nobody."
    assert "You are Tiny" in bare.render("base", "Q?")
    assert "You are Tiny" not in bare.render("sys_pos", "Q?", SAID)
    roles = INJECTING.replace("<system>", "system").replace("<{{ m.role }}>", "{{ m.role }}")
    named = Renderer(byte_level(roles.replace("<assistant>", "assistant")), system_text="")
    assert named.injected == "You are Tiny, made by Nobody.", "names of roles around it are no text"


def test_a_date_in_the_template_is_pinned():
    renderer = Renderer(byte_level(DATED), date="2023-02-01")
    assert renderer.render("base", "Q?").startswith("Today is 01 February 2023\n<s>")
    # asks, and does not write: some templates write it into a system text of their own alone
    assert "the chat template asks for the date, pinned to 2023-02-01" in renderer.notes
    assert str(datetime.date.today().year) not in renderer.render("base", "Q?")
    with pytest.raises(SpecError, match=r"prompt\.date: '2024-13-01' is not a date"):
        pin_date("", "2024-13-01")


@pytest.mark.parametrize(
    "use", ["{{ strftime_now(format) }}", "{% set now = strftime_now %}{{ now('%d') }}", "{{ f(strftime_now) }}"]
)
def test_a_date_that_cannot_be_pinned_is_refused(use):
    with pytest.raises(ModelError, match=r"cannot be pinned; name prompt\.template"):
        pin_date("{% if strftime_now is defined %}{{ strftime_now('%d') }}{% endif %}" + use, "2024-07-01")


@pytest.mark.parametrize("use", ["{%- if strftime_now is defined %}", "{% if strftime_now is not defined %}"])
def test_asking_whether_there_is_a_date_is_no_use_of_it(use):
    template = use + "x{% endif %}{# strftime_now is transformers' own #}"
    assert pin_date(template, "2024-07-01") == template


def test_template_arguments_reach_the_template():
    tokenizer = byte_level(WITH_SYSTEM + "{% if not think %}<nothing>{% endif %}")
    assert Renderer(tokenizer, template_args={"think": True}).render("base", "Q").endswith("<assistant>\n")
    assert Renderer(tokenizer, template_args={"think": False}).render("base", "Q").endswith("<nothing>")


def test_a_template_argument_that_the_template_does_not_know_is_noted():
    tokenizer = byte_level(WITH_SYSTEM + "{% if not think %}<nothing>{% endif %}")
    assert Renderer(tokenizer, template_args={"think": True}).notes == ()
    (note,) = Renderer(tokenizer, template_args={"think": True, "thin": False}).notes
    assert note == "the chat template has no 'thin': prompt.template_args.thin changes nothing"


@pytest.mark.parametrize(
    "tag", ["<think>", "<thought>", "[THINK]", "<seed:think>", "<|thinking|>", "<|START_THINKING|>"]
)
def test_a_prompt_that_ends_in_an_open_thinking_block_is_noted(tag):
    end = tag.replace("|", "|/", 1) if "|" in tag else f"{tag[0]}/{tag[1:]}"
    end = end.replace("/START", "END")
    for template, is_open in (
        (f"{WITH_SYSTEM}{tag}\n", True),
        (f"{WITH_SYSTEM}{tag}\n\n{end}\n\n", False),
        (f"Your thoughts go after {tag}.\n{WITH_SYSTEM}", False),
    ):
        notes = [note for note in Renderer(byte_level(template)).notes if "prompt.template_args" in note]
        assert [f"end in an open {tag} block" in note for note in notes] == [True] * is_open
        assert not any("open" in note for note in Renderer(byte_level(template), prefill=end).notes)


@pytest.mark.parametrize("begun", ["<think>\n\n</think>\n\n", "<|channel|>final<|message|>", "\n"])
def test_a_prompt_that_ends_before_what_the_template_begins_replies_with_is_noted(begun):
    template = (
        "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}BEGUN{% endif %}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% if closed %}BEGUN{% endif %}{% endif %}"
    )
    tokenizer = byte_level(template.replace("BEGUN", f"{{{{ {begun!r} }}}}"))
    (note,) = Renderer(tokenizer).notes
    assert note.startswith(f"prompts end before {begun!r}, with which the chat template begins a reply")
    assert Renderer(tokenizer, template_args={"closed": True}).notes == ()
    remedy = tomllib.loads(note.rpartition("set prompt.")[2])["prefill"]
    for prefill, n_notes in ((remedy, 1), (f"{remedy}I say", 1), ("I say", 2)):
        assert len(Renderer(tokenizer, prefill=prefill).notes) == n_notes


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_prefill_ends_every_prompt_and_is_noted(setting):
    renderer = Renderer(byte_level(), prefill="<think>\n</think> I choose")
    assert (
        renderer.render(setting, "Q?", SAID)
        == f"{Renderer(byte_level()).render(setting, 'Q?', SAID)}{renderer.prefill}"
    )
    assert any("every reply begins with '<think>\\n</think> I choose'" in note for note in renderer.notes)


def test_a_template_that_could_end_prompts_in_an_empty_thought_and_does_not_is_noted():
    end = "{% if add_generation_prompt and not enable_thinking | default(true) %}<think></think>{% endif %}"
    tokenizer = byte_level(WITH_SYSTEM + end)
    (note,) = Renderer(tokenizer).notes
    assert "enable_thinking = false ends prompts in an empty thought" in note
    for chosen in (True, False):
        assert Renderer(tokenizer, template_args={"enable_thinking": chosen}).notes == ()
    assert not any("thoughts" in note for note in Renderer(tokenizer, prefill="<think></think>").notes)


def test_replies_that_begin_after_a_space_or_are_refused_leave_nothing_to_note():
    spaced = WITH_SYSTEM.replace("<assistant>\n", "<assistant>").replace("\n{{ m.content | trim }}", " {{ m.content }}")
    refusing = "{% if messages[-1].role == 'assistant' %}{{ raise_exception('no') }}{% endif %}" + WITH_SYSTEM
    assert Renderer(byte_level(spaced)).render("base", "Q?").endswith("<assistant>")
    assert [Renderer(byte_level(template)).notes for template in (spaced, refusing)] == [(), ()]
    assert Renderer(byte_level(None), template="llama-2").notes == ()


def test_a_tokenizer_without_template_needs_one_named_in_the_spec():
    for none in (None, ""):
        with pytest.raises(
            SpecError, match=r"prompt\.template: .* no chat template; name one of plain, llama-2, chatml"
        ):
            Renderer(byte_level(none))
    with pytest.raises(SpecError, match=r"prompt\.template: 'alpaca' is not known; there are plain"):
        Renderer(byte_level(), template="alpaca")


def test_of_templates_under_names_the_default_is_taken_and_its_absence_said():
    named = {"default": WITH_SYSTEM, "tool_use": "{{ tools }}"}
    assert Renderer(byte_level(named)).template_sha256 == Renderer(byte_level()).template_sha256
    with pytest.raises(SpecError, match=r"of its chat templates \(rag, tool_use\) none is called default; name one of"):
        Renderer(byte_level({"tool_use": WITH_SYSTEM, "rag": WITH_SYSTEM}))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", "S\n\nQ?\n\nAnswer:"),
        ("llama-2", "[INST] <<SYS>>\nS\n<</SYS>>\n\nQ? [/INST]"),
        ("chatml", "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ?<|im_end|>\n<|im_start|>assistant\n"),
    ],
)
def test_named_templates(name, expected):
    assert Renderer(byte_level(None), template=name, system_text="S").render("base", "Q?") == expected
    assert name in TEMPLATES
    without = Renderer(byte_level(None), template=name, system_text=None)
    assert without.render("base", "Q?").count("Q?") == 1
    assert "SYS" not in without.render("base", "Q?")
    assert without.injected == ""


def test_named_templates_begin_with_the_bos_that_the_tokenizer_would_add():
    from tokenizers.processors import TemplateProcessing

    tokenizer = words(None)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    assert Renderer(tokenizer, template="plain").render("base", "Q").startswith(f"<s>{SYSTEM}")
    without = Renderer(tokenizer, template="plain", template_args={"add_bos": False})
    assert without.render("base", "Q").startswith(SYSTEM), "unless the spec says otherwise"
    tokenizer.chat_template = WITH_SYSTEM.replace("{{ bos_token }}", "")
    assert any("writes none" in note for note in Renderer(tokenizer).notes)
    tokenizer.chat_template = "    " + WITH_SYSTEM  # a template that indents its BOS writes one
    assert Renderer(tokenizer).notes == ()


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% for m in messages %}\n{{ m.content", "unexpected end of template"),
        ("{{ messages[5].content.foo() }}", "has no element 5"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    ],
)
def test_a_template_that_fails_is_one_line(template, said):
    with pytest.raises(
        ModelError, match=rf"the chat template \(tokenizer\) cannot render this prompt: .*{said}"
    ) as caught:
        Renderer(byte_level(template))
    assert "\n" not in str(caught.value)


def test_a_template_that_changes_the_question_or_the_system_text_is_refused_unless_it_is_the_space_around_it():
    assert "<user>\nq?" in Renderer(byte_level(WITH_SYSTEM), system_text=" You are. ").render("base", " q?\n")
    lower = Renderer(byte_level(WITH_SYSTEM.replace("| trim", "| lower")), system_text="You are good.")
    with pytest.raises(ModelError, match="changes or drops the text 'You are good"):
        lower.render("base", "q?")
    upper = WITH_SYSTEM.replace("| trim", "| upper")
    with pytest.raises(ModelError, match="changes or drops the text 'you are good"):
        Renderer(byte_level(upper), system_text=None).render("sys_pos", "q?", Description("you are good.", "x"))
    cutting = Renderer(byte_level(WITH_SYSTEM.replace("| trim", "| truncate(12)")), system_text=None)
    with pytest.raises(ModelError, match="changes or drops the text 'Is this a long"):
        cutting.render("base", "Is this a long question?")
    with pytest.raises(ModelError, match="cannot render"):
        Renderer(byte_level("{{ raise_exception('never') }}"))


def test_unknown_settings_and_missing_descriptions_are_named():
    renderer = Renderer(byte_level())
    with pytest.raises(SpecError, match="settings: 'sys' is not one of base, sys_pos"):
        renderer.render("sys", "Q?", SAID)
    with pytest.raises(SpecError, match="user_pos needs a description"):
        renderer.render("user_pos", "Q?")


def test_the_identity_follows_the_template_and_not_the_remarks():
    one, two = Renderer(byte_level()), Renderer(byte_level(INJECTING))
    assert one.identity() != two.identity()
    assert one.identity() == Renderer(words()).identity()
    assert set(one.identity()) <= set(one.describe())
    json.dumps(one.describe())
