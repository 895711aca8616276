"""What a data set's rows become: prompts as a model reads them, answers as they are compared; bad rows are refused."""

import datetime
import json
import re

import pytest
from transformers import PreTrainedTokenizerFast

from maxpo_bench import cli
from maxpo_bench.errors import InputError
from maxpo_bench.problems.prompts.huggingface import Source
from maxpo_bench.settings import task_file

DATA = {
    "subset": "", "split": "train", "held_out_split": "held_out", "prompt_column": "question", "answer_column": "answer",
    "template": "{prompt}", "chat": True, "date": "2024-07-26", "answer": "last_number", "answer_tolerance": 0.0,
}  # fmt: skip
CHAT = (
    "<s>{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}{% for m in messages %}"
    "{% if m['role'] == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}[{{ m['role'] }}]{{ m['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


def source(tmp_path, rows, **changes):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return Source({**DATA, "source": str(path), **changes}, where="t.yaml")


def tokenizer(adds_bos=True, ends=False):
    """Words as tokens; one that adds <s> at the front (and </s> at the end) unless told not to add special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: i for i, word in enumerate(["<s>", "</s>", "<unk>", "a", "b", "What"])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if adds_bos:
        single = "<s> $A </s>" if ends else "<s> $A"
        inner.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 0), ("</s>", 1)])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    made.chat_template = CHAT
    return made


def question(content="What is 1+1?", **row):
    return {"question": content, "answer": "2", **row}


def refused(tmp_path, rows, **changes):
    """The one line with which these rows are refused."""
    with pytest.raises(InputError) as caught:
        made = source(tmp_path, rows, **changes)
        for prompt in made.rows("train")["prompt"]:
            made.format_prompt(prompt, tokenizer())
    line = str(caught.value)
    assert line.startswith("t.yaml: data") and "\n" not in line
    return line


def test_messages_are_prompts(tmp_path):
    turns = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "What is 1+1?"}]
    made = source(tmp_path, [question(turns), question(turns[1:], answer="3")], template="{prompt} End with ####.")
    texts = [made.format_prompt(prompt, tokenizer()) for prompt in made.rows("train")["prompt"]]
    wanted = "[user]What is 1+1? End with ####.[assistant]"
    assert texts == [f"<s>26 Jul 2024[system]Be short.{wanted}", f"<s>26 Jul 2024{wanted}"]
    assert made.table("train").to_list()[0]["prompt"] == turns
    assert made.rows("train")["prompt"][0] == turns, "filling in the template leaves the row as it is"


def test_messages_are_split_by_their_text(tmp_path):
    rows = [question([{"role": "user", "content": f"What is {i}?"}]) for i in range(100)]
    made = source(tmp_path, rows, held_out_split="")
    train, held_out = (json.dumps(made.rows(split)["prompt"]) for split in ("train", "held_out"))
    assert train.count("role") + held_out.count("role") == 100 and 3 < held_out.count("role") < 30


@pytest.mark.parametrize("content,changes,problem", [
    ([{"role": "user", "content": "1+1?"}], {"chat": False}, "row 2 .*'question'.*set data.chat to true"),
    ([{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}], {}, "row 2 .*before the assistant's turn"),
    ([], {}, "row 2 .*before the assistant's turn"),
    ([{"role": "user"}], {}, "row 2 .*a message has a text as role and one as content"),
    ([{"role": "user", "content": None}], {}, "row 2 .*a message has a text as role"),
    ([{"role": "tool", "content": "1"}], {}, "the chat template refuses .*no tools here"),
    (["What is 1+1?"], {}, "row 2 .*a message has a text as role"),
    (None, {}, "row 2 .*no prompt .null"),
])  # fmt: skip
def test_prompts_that_are_none_are_refused(tmp_path, content, changes, problem):
    """In the second row, behind a good one of the same type."""
    good = question([{"role": "user", "content": "What is 1+1?"}])
    if content is None:
        good = question()
    if not changes and content != ["What is 1+1?"]:
        assert re.search(problem, refused(tmp_path, [good, question(content)]))
    else:
        assert re.search(problem.replace("row 2", "row 1"), refused(tmp_path, [question(content)], **changes))


@pytest.mark.parametrize("answer,problem", [
    (None, "row 2 .*'answer': no answer"), ("yes", "row 2 .*holds no number, or more than one: 'yes'"),
    ("\\sqrt{2}", "row 2 .*holds no number"), ("5 or 6", "row 2 .*holds no number, or more"), ("#### x", "row 2 .*holds no number"),
])  # fmt: skip
def test_golds_that_cannot_be_read_are_refused_with_their_row(tmp_path, answer, problem):
    assert re.search(problem, refused(tmp_path, [question(), question(answer=answer)]))


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_a_bad_row_is_refused_on_whichever_side_it_is(tmp_path, split):
    made = source(tmp_path, [question(f"{i}?", answer="x" if i == 20 else "2") for i in range(40)], held_out_split="")
    with pytest.raises(InputError, match="row 21 "):
        made.rows(split)


def test_every_gold_of_a_list_is_right(tmp_path):
    made = source(tmp_path, [question(answer=["2", "x = 4/2", "1e3"]), question("b", answer=["7"])])
    first, second = made.table("train").to_list()
    assert [made.verify(first, text) for text in ("2", "#### 2", "1000", "3")] == [1, 1, 1, 0]
    assert [made.verify(second, text) for text in ("7", "2")] == [1, 0]
    assert "row 1 " in refused(tmp_path, [question(answer=[])])
    assert "row 2 " in refused(tmp_path, [question(answer=["1"]), question(answer=["1", "no"])])


@pytest.mark.parametrize("answer,right,wrong", [
    ("0.00001", "0.00001", "0"), ("1e-05", "1e-5", "1"), ("1e16", "10,000,000,000,000,000", "1"), ("0.1", "1/10", "0.11"),
    ("-3", "-3", "3"),
])  # fmt: skip
def test_golds_may_be_numbers_of_json(tmp_path, answer, right, wrong):
    made = source(tmp_path, [f'{{"question": "q", "answer": {answer}}}'])
    row = made.table("train").to_list()[0]
    assert made.verify(row, right) == 1 and made.verify(row, wrong) == 0


def test_a_date_in_a_chat_template_is_the_task_s(tmp_path):
    today = datetime.datetime.now().strftime("%d %b %Y")
    for day, date in (("2024-07-26", "26 Jul 2024"), ("2031-01-01", "01 Jan 2031")):
        made = source(tmp_path, [question()], date=day)
        text = made.format_prompt("What?", tokenizer())
        assert text == f"<s>{date}[user]What?[assistant]" and (today not in text or today == date)
    words, wanted = "%A %B %-d, %Y %m/%d/%y %j %H:%M", "Saturday March 7, 2026 03/07/26 066 00:00"
    spoken = tokenizer()
    spoken.chat_template = f"\n{{%- set d = strftime_now('{words}') %}}{{{{ d }}}}."
    assert source(tmp_path, [question()], date="2026-03-07").format_prompt("What?", spoken) == f"{wanted}."


@pytest.mark.parametrize("data,problem", [
    ({"template": "Q: {question}"}, "data.template.*has no {prompt}"),
    ({"date": "today"}, "data.date.*a day like 2026-01-01, got .today"),
    ({"answer": "evaluated"}, "data.answer"),
])  # fmt: skip
def test_keys_that_no_run_could_mean_are_refused_when_the_task_is_read(tmp_path, data, problem):
    task = {
        "version": 1, "kind": "huggingface", "title": "t", "k": 2, "group_size": 4, "steps": 1, "optimiser": {"lr": 0.1},
        "model": {"name": "m"}, "sampling": {"max_new_tokens": 4}, "data": {"source": "rows.jsonl", **data},
    }  # fmt: skip
    (tmp_path / "t.yaml").write_text(json.dumps(task))
    with pytest.raises(InputError, match=problem) as caught:
        task_file.load(str(tmp_path / "t.yaml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data, day", [({}, "2026-01-01"), ({"date": "2024-07-26"}, "2024-07-26")])
def test_the_day_that_a_chat_template_sees_stands_in_provenance(tmp_path, data, day):
    from maxpo_bench.pipeline import jobs

    task = {
        "version": 1, "kind": "huggingface", "title": "t", "k": 2, "group_size": 4, "steps": 1, "optimiser": {"lr": 0.1},
        "model": {"name": "m"}, "sampling": {"max_new_tokens": 4}, "data": {"source": "rows.jsonl", **data},
    }  # fmt: skip
    (tmp_path / "t.yaml").write_text(json.dumps(task))
    assert jobs.provenance(task_file.load(str(tmp_path / "t.yaml")), [])["date"] == day


def test_a_plain_prompt_begins_with_bos_once_where_the_tokenizer_adds_one(tmp_path):
    made = source(tmp_path, [question()], chat=False)
    for words, adds_bos, ends in (("a b", True, False), ("<s> a b", True, False), ("a b", True, True)):
        assert made.encode([words, "b"], tokenizer(adds_bos, ends)) == [[0, 3, 4], [0, 4]]
    assert made.encode(["a b", "b"], tokenizer(adds_bos=False)) == [[3, 4], [4]]
    chat = source(tmp_path, [question()])
    assert chat.encode(["<s> a b"], tokenizer()) == [[0, 3, 4]], "a chat template writes its own"


@pytest.mark.parametrize("line", [b'{"question": "Gr\xfc\xdfe?", "answer": "2"}', b'{"question": "\xff\xfe", "answer": 1}'])
def test_a_file_that_is_not_utf8_is_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch, line):
    path = tmp_path / "latin.jsonl"
    path.write_bytes(b'{"question": "a", "answer": "2"}\n' + line)
    with pytest.raises(InputError, match="latin.jsonl: line 2 is not UTF-8 .*save the file as UTF-8") as caught:
        Source({**DATA, "source": str(path)}, where="t.yaml").rows("train")
    assert "\n" not in str(caught.value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.yaml").write_text(
        "version: 1\nkind: huggingface\ntitle: t\nk: 2\ngroup_size: 4\nsteps: 1\nseeds: 1\noptimiser: {lr: 0.1}\n"
        f"model: {{name: {tmp_path / 'model'}}}\ndata: {{source: latin.jsonl}}\nsampling: {{max_new_tokens: 4}}\n"
    )
    _save_model(tmp_path / "model")
    capsys.readouterr()
    assert cli.main(["base", "latin.yaml"]) == 2
    assert capsys.readouterr().err.strip().count("\n") == 0 and not (tmp_path / "results" / "base").exists()


def _save_model(folder):
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer().save_pretrained(folder)
    config = LlamaConfig(vocab_size=6, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    LlamaForCausalLM(config).save_pretrained(folder)
