"""``resque merge``: the profile of a dataset from those of its shards."""

import os
from pathlib import Path
from typing import Annotated

import typer

from resque.cli import options as opt
from resque.cli.profile import show_profile
from resque.errors import SettingError


def merge(
    shards: Annotated[list[Path], typer.Argument(help="Profiles of all shards, in any order.")],
    out: Annotated[Path, opt.option(opt.OUTPUT, "Profile to write, .safetensors.")],
    as_json: opt.Json = False,
) -> None:
    """Merge the profiles of all shards into that of the whole data: what `resque profile --shard` wrote.

    Example: resque merge shard-1.safetensors shard-2.safetensors --out net.profile
    """
    from resque.indices.merging import merge as merged

    if os.path.exists(out) and any(os.path.exists(shard) and os.path.samefile(out, shard) for shard in shards):
        raise SettingError(f"--out {out} is one of the shards, which are kept: name another file")
    result = merged(shards)
    result.save(out)
    show_profile(result, out, as_json)
