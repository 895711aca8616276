"""Completions of a language model, judged by the task's verifier.

One seed per process (the cell runner forks one per seed). The task's kind names the source of prompts, `model` a pretrained
model or the shape of a new one, `verifier` who judges: any with any. policies/causal_lm.py samples and scores.
"""

import contextlib
import importlib
from dataclasses import dataclass, field
from pathlib import Path

import torch

from maxpo_bench.errors import Fault, InputError
from maxpo_bench.machine import files
from maxpo_bench.policies import causal_lm, lora, pretrained, self_check
from maxpo_bench.problems import Evaluation, Problem, verifiers
from maxpo_bench.training import streams
from maxpo_bench.training.devices import find_device, num_workers
from maxpo_bench.training.shards import Shards, world_size

DISTINCT_SAMPLES = 8  # the rate depends on how many are compared: the same number at every evaluation
EVALUATION_ROWS = 4096  # completions sampled at once while evaluating, at most; bounds the memory
EVALUATION_LOGITS = 2**25  # and their logits: a real vocabulary has 50,000 tokens and more


@dataclass
class Batch:
    """G prompts with N completions each. Sequence statistics have the seed axis S = 1 in front."""

    rows: list
    """the G prompts as rows of the source's table (dicts)"""
    prompt_tokens: torch.Tensor
    """[G, P] int64, left-padded"""
    prompt_mask: torch.Tensor
    """[G, P] bool"""
    completions: causal_lm.Completions
    log_probs: torch.Tensor = field(init=False)
    """[1, G, N] float32, log-probability of each completion when it was sampled"""

    def __post_init__(self):
        self.log_probs = self.completions.token_log_probs.sum(-1)[None]


class LanguageProblem(Problem):
    """Prompts, completions and rewards of one language task and one seed."""

    row_wise = True
    highest_reward = 1.0

    def __init__(self, task, seeds, base=None):
        super().__init__(task, seeds, base)
        if len(self.seeds) != 1:
            raise ValueError(f"task {task.name}: a language problem runs one seed per process, got {self.seeds}")
        self.seed = self.seeds[0]
        module = importlib.import_module(f"maxpo_bench.problems.prompts.{task.kind}")
        self.source = module.Source(task.section("data"), where=task.path.name)
        name, self.lora = task.section("model").get("name"), task.section("lora")
        self.pretrained = pretrained.Pretrained(name, task.path.name) if name else None
        self.tokenizer = (self.pretrained or self.source).load_tokenizer()
        if task.section("data").get("chat") and self.tokenizer.chat_template is None:
            raise InputError(f"{task.path.name}: data.chat: the tokenizer of {name or 'a new model'} has no chat template")
        self.verify = verifiers.make(task.section("verifier"), self.source, strips=bool(name))
        self.device = find_device(task.section("device"), task.path.name)
        self.max_workers = num_workers(task, self.device)
        shards = (task.section("distributed") or {"shards": 1})["shards"]
        if world_size() > 1 or shards > 1:
            shards = Shards(shards, task.path.name)
            self.shards = shards if shards.count > 1 else None
        sampling = task.section("sampling")
        self.max_new_tokens, self.temperature = sampling["max_new_tokens"], sampling["temperature"]
        self.stop, self.truncated_earns_nothing = sampling["stop"], sampling["truncated"] == "zero"
        self.pad_id = self.tokenizer.pad_token_id
        self.eos_ids = self.pretrained.end_tokens(self.tokenizer) if name else [self.tokenizer.eos_token_id]
        self.saves_states = not name or bool(self.lora.get("rank"))  # whole pretrained models are somebody else's to store
        self._splits, self._reference, self._policy = {}, None, None

    def split(self, name):
        """Rows and token lists of a split, read once: (list of dicts, list of lists of int)."""
        if name not in self._splits:
            rows = self.source.table(name).to_list()
            shown = [prompt for prompt, _ in self.source.examples()]
            rows = [row for row in rows if row["prompt"] not in shown] if shown else rows
            if not rows:
                raise InputError(f"{self.task.path.name}: data: split {name!r} is empty")
            verifiers.check(self.task.section("verifier"), rows, self.task.kind, self.task.path.name)
            texts = [self.source.format_prompt(row["prompt"], self.tokenizer) for row in rows]
            tokens = self.source.encode(texts, self.tokenizer)
            self._check_lengths(name, tokens)
            self._splits[name] = rows, tokens
        return self._splits[name]

    def _check_lengths(self, split, tokens):
        longest = max(range(len(tokens)), key=lambda i: len(tokens[i]))
        context = (self.pretrained or self.source).context()
        if len(tokens[longest]) + self.max_new_tokens > context:
            num_examples = len(self.source.examples())
            shown = f" with its {num_examples} examples" if num_examples else ""
            raise InputError(
                f"{self.task.path.name}: data: prompt {longest} of split {split!r} has {len(tokens[longest])} tokens{shown}; "
                f"with sampling.max_new_tokens {self.max_new_tokens} that is more than the model's context of {context}"
            )
        if not all(tokens):
            raise InputError(f"{self.task.path.name}: data: split {split!r} has an empty prompt")
        if not self.pretrained and self.source.shortest_answer > self.max_new_tokens:  # a character is a token
            raise InputError(
                f"{self.task.path.name}: sampling.max_new_tokens: {self.max_new_tokens}, but the shortest answer of the data set "
                f"has {self.source.shortest_answer} tokens"
            )

    def encode_pairs(self, pairs):
        """Prompt + completion + end token, right-padded: tokens, targets [B, T]; targets are -100 where not learnt."""
        tokenizer = self.tokenizer
        prompts = [self.source.format_prompt(prompt, tokenizer) for prompt, _ in pairs]
        prompts = self.source.encode(prompts, tokenizer)
        answers = tokenizer([c for _, c in pairs], add_special_tokens=False)["input_ids"]
        sequences = [p + a + [self.eos_ids[0]] for p, a in zip(prompts, answers, strict=True)]
        tokens = torch.full((len(pairs), max(map(len, sequences))), self.pad_id)
        targets = torch.full_like(tokens, -100)
        for i, (prompt, sequence) in enumerate(zip(prompts, sequences, strict=True)):
            tokens[i, : len(sequence)] = torch.tensor(sequence)
            targets[i, len(prompt) : len(sequence)] = tokens[i, len(prompt) : len(sequence)]
        return tokens.to(self.device), targets.to(self.device)

    def untrained_policy(self):
        """The model before any warm start. InputError where none of our ways to read it gives its own numbers."""
        policy = self._load_model().to(self.device)
        try:
            self_check.way_of(policy, self._longest())
        except InputError as error:
            raise InputError(f"{self.task.path.name}: model: {error}") from None
        if self.lora.get("rank"):
            lora.add(policy, self.lora, self._first_seed("lora"), self.task.path.name).to(self.device)
        self._policy = policy
        return policy

    def _load_model(self):
        """The pretrained model, or a new one of the task's `model` section, its initial weights depending on the seed."""
        if self.pretrained:
            return self.pretrained.load_model()
        tokenizer, shape = self.tokenizer, self.task.section("model")
        sizes = len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id, self.source.context()
        return causal_lm.from_config(shape, *sizes, self._first_seed("weights"))

    def _first_seed(self, purpose):
        return int(streams.seed_ints(self.task.name, self.seed, purpose, 0, 1)[0])

    def _longest(self):
        """Tokens of the longest prompt and its completion."""
        prompts = [tokens for split in ("train", "held_out") for tokens in self.split(split)[1]]
        return max(map(len, prompts)) + self.max_new_tokens

    def self_check(self):
        """One batch of the model as it comes: sampled, scored and read plainly, the same. InputError where it is not."""
        policy = self.untrained_policy()
        if self._autocast:  # the float32 of before says that masks and caches are right; bfloat16 is coarser
            with self._precision():
                off = self_check.sampled_against_scored(policy)
            if off > self_check.AUTOCAST_TOLERANCE:
                raise InputError(
                    f"{self.task.path.name}: model: {type(policy).__name__} under bfloat16: a token's log-probability when sampled "
                    f"and when scored differ by {off:.2g} nats on average; precision: float32 is the other choice"
                )

    def initial_policy(self):
        """The base policy: loaded from the base stage's weights, or made here when there is no base folder."""
        from maxpo_bench.training import warm_start

        policy = self.untrained_policy()
        if self.base is not None and self.saves_states:
            path = Path(self.base) / "weights.safetensors"
            if not path.is_file():
                raise InputError(f"{path}: no base policy; `maxpo-bench base {self.task.name}` makes it")
            self.load_states(policy, [files.load_states(path, [self.seed])[self.seed]])
        elif self.task.section("warm_start")["steps"] > 0:
            self.load_states(policy, [warm_start.make_base(self, self.seed)])
        return policy

    def prepare(self):
        """Read every prompt, and import what takes seconds. The model on the CPU: a GPU cannot be forked."""
        self.split("train")
        self._held_out(self.task.evaluation["prompts"])
        self._held_out(self.task.evaluation["curve_prompts"])
        model = self._load_model()
        if self.lora.get("rank"):
            lora.add(model, self.lora, 0, self.task.path.name)

    def policy_states(self, policy):
        """The weights of the seed; of a model with adapters, the adapters alone."""
        return [{name: tensor.detach().clone() for name, tensor in self._weights(policy).items()}]

    def _weights(self, policy):
        if self.lora.get("rank"):
            return {name: tensor for name, tensor in policy.named_parameters() if tensor.requires_grad}
        tied = getattr(policy, "all_tied_weights_keys", None) or {}
        return {name: tensor for name, tensor in policy.state_dict().items() if name not in tied}

    def load_states(self, policy, states):
        own = {name: tensor.shape for name, tensor in self._weights(policy).items()}
        given = {name: tensor.shape for name, tensor in states[0].items()}
        wrong = sorted(name for name in own.keys() | given.keys() if own.get(name) != given.get(name))
        if wrong:
            raise InputError(f"task {self.task.name}: these weights are another model's: {', '.join(wrong[:3])}")
        policy.load_state_dict(states[0], strict=False)
        policy.tie_weights()

    def sample(self, policy, step, purpose="train", groups=None, group_size=None):
        """G prompts, without repeats where there are enough, and N completions of each."""
        groups, group_size = groups or self.task.groups, group_size or self.task.group_size
        rows, _ = self.split("train")
        prompts = streams.generator(self.task.name, self.seed, f"{purpose}-prompts", step)
        chosen = prompts.choice(len(rows), size=groups, replace=groups > len(rows))
        noise = streams.generator(self.task.name, self.seed, purpose, step).random((groups, group_size, self.max_new_tokens))
        if self.shards is None or purpose != "train":
            return self._sample_rows(policy, "train", chosen, noise)
        dealt = list(zip(self.shards.split(chosen), self.shards.split(noise), strict=True))
        return [self._sample_rows(policy, "train", *dealt[shard]) for shard in self.shards.own]

    def parts(self, batch, advantages):
        if self.shards is None:
            return [(batch, advantages)]
        dealt = advantages.chunk(self.shards.count, dim=1)
        return [(part, dealt[shard]) for part, shard in zip(batch, self.shards.own, strict=True)]

    def _of_all(self, batch, what):
        """what(batch) [1, G, N]; of a step in shards, each shard's, put together in every process."""
        if isinstance(batch, list):
            return torch.cat(self.shards.exchange([what(part) for part in batch]), dim=1)
        return what(batch)

    def _sample_rows(self, policy, split, chosen, noise):
        rows, tokens = self.split(split)
        prompt_tokens, prompt_mask = self._left_pad([tokens[i] for i in chosen])
        uniforms = torch.from_numpy(noise)
        with self._precision():
            completions = causal_lm.sample_groups(
                policy, prompt_tokens, prompt_mask, uniforms, self.eos_ids, self.pad_id, self.temperature, self._stops()
            )
        return Batch([rows[i] for i in chosen], prompt_tokens, prompt_mask, completions)

    def _stops(self):
        """Which completions hold a stop text by now, as sample_groups asks it: tokens [R, t] -> [R] bool. None without any.

        No text before held one, so that only the end is read: a token is at least a byte, or none where it is a special one.
        """
        if not self.stop:
            return None
        reach = 8 + 4 * max(map(len, self.stop))

        def stopped(tokens):
            texts = self._texts(tokens[:, -reach:].tolist())
            return torch.tensor([any(stop in text for stop in self.stop) for text in texts], device=tokens.device)

        return stopped

    def _texts(self, sequences):
        return self.tokenizer.batch_decode(sequences, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    @property
    def _autocast(self):
        wanted = self.task.section("precision") or "auto"
        return self.device.type == "cuda" if wanted == "auto" else wanted == "bfloat16"

    def _precision(self):
        """bf16 arithmetic where the task says so or on a GPU. Weights stay float32: bf16 ones would swallow steps of 1e-6."""
        return torch.autocast(self.device.type, torch.bfloat16) if self._autocast else contextlib.nullcontext()

    def _left_pad(self, prompts):
        width = max(map(len, prompts))
        tokens = torch.tensor([[self.pad_id] * (width - len(p)) + p for p in prompts], device=self.device)
        mask = torch.tensor([[False] * (width - len(p)) + [True] * len(p) for p in prompts], device=self.device)
        return tokens, mask

    def reward(self, batch):
        """The verifier's reward of each completion: [1, G, N] float64. A verifier that raises is counted: a Fault."""

        def rewards(batch):
            return torch.tensor([[reward for _, reward, _ in group] for group in self._judged(batch)], dtype=torch.float64)[None]

        if not isinstance(batch, list):
            return rewards(batch)
        return torch.cat(self._judged_by_all([lambda part=part: rewards(part) for part in batch]), dim=1)

    def _judged_by_all(self, work):
        """What every shard's work gave, in order: own ones are done here. A verifier that raised anywhere raises everywhere."""
        before, given = self.verifier_errors, []
        for one in work:
            counted = self.verifier_errors
            try:
                value, fault = one(), None
            except Fault as error:
                value, fault = None, str(error)
            given.append((value, fault, self.verifier_errors - counted))
        found = self.shards.exchange(given)
        self.verifier_errors = before + sum(count for _, _, count in found)
        for _, fault, _ in found:
            if fault:
                raise Fault(fault)
        return [value for value, _, _ in found]

    def _judged(self, batch):
        """(text, reward, was it cut off) of each completion; equal completions of a prompt are decoded and judged once.

        Cut off: max_new_tokens long with neither an end token nor a stop text. The text ends before the first stop text.
        """
        tokens = batch.completions.tokens.cpu().numpy()
        lengths = batch.completions.lengths.cpu().numpy()
        ends = set(self.eos_ids)
        keys, unique = [], {}
        for g in range(tokens.shape[0]):
            for i in range(tokens.shape[1]):
                key = (g, tokens[g, i, : lengths[g, i]].tobytes())
                keys.append(key)
                if key not in unique:
                    sequence = tokens[g, i, : lengths[g, i]].tolist()
                    unique[key] = sequence[:-1] if sequence[-1] in ends else sequence
        judged, first_error, unscored = {}, None, self.source.unscored
        for key, text in zip(unique, self._texts(list(unique.values())), strict=True):
            cut_off = len(unique[key]) == self.max_new_tokens  # an end token is no part of it
            stops = [at for at in map(text.find, self.stop) if at >= 0]
            if stops:
                text, cut_off = text[: min(stops)], False
            try:
                reward = float(self.verify(batch.rows[key[0]], text))
                judged[key] = text, 0.0 if cut_off and self.truncated_earns_nothing else reward, cut_off
            except Exception as error:  # any error at all of a verifier is a fault of the task, not a wrong answer
                self.verifier_errors += 1
                first_error = first_error or (error, batch.rows[key[0]]["prompt"], text)
        self.verifier_errors += self.source.unscored - unscored
        if first_error:
            error, prompt, text = first_error
            raise Fault(
                f"task {self.task.name}: the verifier raised {self.verifier_errors} times, first "
                f"{type(error).__name__}: {error} on prompt {prompt[:60]!r}, completion {text[:60]!r}"
            ) from error
        num_samples = tokens.shape[1]
        flat = [judged[key] for key in keys]
        return [flat[g * num_samples : (g + 1) * num_samples] for g in range(tokens.shape[0])]

    def token_log_probs(self, policy, batch, rows=None):
        """Differentiable log-probabilities by token, [R, T], of rows of the flattened G*N (all by default).

        Equal completions of a prompt go through the model once.
        """
        num_tokens = batch.completions.tokens.shape[-1]
        rows = torch.arange(batch.log_probs.numel()) if rows is None else rows
        unique, inverse, lengths = self._distinct(batch, rows.to(self.device))
        prompts, prompt_of = torch.unique(unique[:, 0], return_inverse=True)
        with self._precision():
            log_probs = causal_lm.token_log_probs(
                policy,
                batch.prompt_tokens[prompts],
                batch.prompt_mask[prompts],
                prompt_of,
                unique[:, 1 : 1 + int(lengths.max())],
                lengths,
                self.temperature,
            )
        log_probs = torch.nn.functional.pad(log_probs, (0, num_tokens - log_probs.shape[1]))
        return log_probs.index_select(0, inverse)

    def _distinct(self, batch, rows):
        """The different completions of rows: (prompt, tokens...) [U, 1 + T], which one each row is [R], lengths [U]."""
        _, group_size, num_tokens = batch.completions.tokens.shape
        tokens = batch.completions.tokens.reshape(-1, num_tokens)[rows]
        keys = torch.cat([(rows // group_size)[:, None], tokens], dim=1)
        unique, inverse = torch.unique(keys, dim=0, return_inverse=True)
        lengths = torch.zeros(len(unique), dtype=torch.long, device=self.device)
        lengths[inverse] = batch.completions.lengths.reshape(-1)[rows]
        return unique, inverse, lengths

    def log_probs(self, policy, batch, rows=None):
        log_probs = self.token_log_probs(policy, batch, rows).sum(-1)
        return log_probs if rows is not None else log_probs.reshape(batch.log_probs.shape)

    def reference_log_probs(self, batch, rows=None):
        """The same under the base policy, without gradient: of a model with adapters, the model without them."""
        if self.lora.get("rank"):
            with torch.no_grad(), lora.off(self._policy):
                return self.log_probs(self._policy, batch, rows)
        if self._reference is None:
            trained = self._policy
            with torch.enable_grad():  # without a base folder the policy is trained here
                self._reference = self.initial_policy()
            self._policy = trained
        with torch.no_grad():
            return self.log_probs(self._reference, batch, rows)

    def micro_batches(self, policy, batch, rows):
        num_prompt, num_tokens = batch.prompt_tokens.shape[1], int(batch.completions.lengths.max())
        group_size = batch.completions.tokens.shape[1]
        return causal_lm.micro_batches(policy.config, rows, group_size, num_prompt, num_tokens, len(self.tokenizer))

    def score_norms(self, batch):
        return self._of_all(batch, lambda part: part.completions.score_norms[None].cpu())

    def lengths(self, batch):
        return self._of_all(batch, lambda part: part.completions.lengths[None].cpu())

    def _held_out(self, prompts):
        """Which held-out prompts an evaluation on `prompts` of them takes: always the first of one order."""
        rows, _ = self.split("held_out")
        if prompts > len(rows):
            raise InputError(f"{self.task.path.name}: evaluation: {prompts} prompts wanted, {len(rows)} are held out")
        return streams.generator(self.task.name, 0, "held-out-prompts").permutation(len(rows))[:prompts]

    def evaluate(self, policy, step, prompts, samples):
        """Held-out rewards [1, P, n] of the first P held-out prompts, shuffled once for all, and how varied they are.

        extras: "distinct", part of different completions among a prompt's first 8, mean over prompts; "entropy", nats per
        token, mean over all tokens of all completions; "truncated_share", part of the completions that were cut off.
        """
        chosen = self._held_out(prompts)
        noise = streams.generator(self.task.name, self.seed, "evaluation", step)
        size = max(1, min(EVALUATION_ROWS, EVALUATION_LOGITS // len(self.tokenizer)) // samples)

        def judged(prompts, noise):
            """(rewards, distinct, entropy, tokens, cut off) of some prompts, the last four as sums."""
            rewards, distinct, entropy, num_tokens, cut_off = [], 0, 0.0, 0, 0
            for start in range(0, len(prompts), size):
                chunk = prompts[start : start + size]
                uniforms = noise(chunk, start)
                batch = self._sample_rows(policy, "held_out", chunk, uniforms)
                found = self._judged(batch)
                rewards += [[reward for _, reward, _ in group] for group in found]
                distinct += sum(len({text for text, _, _ in group[:DISTINCT_SAMPLES]}) for group in found)
                cut_off += sum(was_cut_off for group in found for _, _, was_cut_off in group)
                entropy += batch.completions.token_entropies.double().sum().item()
                num_tokens += int(batch.completions.lengths.sum())
            return rewards, distinct, entropy, num_tokens, cut_off

        def draw(chunk, _):
            return noise.random((len(chunk), samples, self.max_new_tokens))

        if self.shards is None:
            found = [judged(chosen, draw)]
        else:
            dealt, uniforms = self.shards.split(chosen), self.shards.split(draw(chosen, 0))
            own = [(dealt[shard], uniforms[shard]) for shard in self.shards.own]
            found = self._judged_by_all(
                [lambda p=p, u=u: judged(p, lambda chunk, start: u[start : start + len(chunk)]) for p, u in own]
            )
        rewards = [row for part in found for row in part[0]]
        distinct, entropy, num_tokens, cut_off = (sum(part[i] for part in found) for i in range(1, 5))
        extras = {"distinct": [distinct / (prompts * min(samples, DISTINCT_SAMPLES))], "entropy": [entropy / num_tokens]}
        extras["truncated_share"] = [cut_off / (prompts * samples)]
        return Evaluation(torch.tensor(rewards, dtype=torch.float64)[None], extras)

    def scores(self, policy, batch):
        """Gradient of each completion's log-probability by all parameters that require it, [1, G*N, D] float32
        on the CPU, ordered as parameters()."""
        unique, inverse, lengths = self._distinct(batch, torch.arange(batch.log_probs.numel(), device=self.device))
        prompt_of, tokens = unique[:, 0], unique[:, 1:]
        scores = causal_lm.score_rows(
            policy, batch.prompt_tokens[prompt_of], batch.prompt_mask[prompt_of], tokens, lengths, self.temperature
        )
        return scores.index_select(0, inverse)[None].cpu()


PROBLEM = LanguageProblem
