"""Merge the profiles of all shards of a dataset into the profile that one process would have computed."""

import copy
import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from resque.data.shards import Shard
from resque.errors import ProfileMismatchError
from resque.indices.profile import Profile, check_same_space

__all__ = ["merge"]

_SHOWN = 8


def merge(shards: Iterable[Profile | str | Path]) -> Profile:
    """Merge the profiles of all shards of one dataset, in any order.

    Class sums, split halves and sums over channels are those of one process, up to the rounding of float64.

    Args:
        shards: Profiles that :func:`resque.profile` computed with ``shard=``, or their files.

    Returns:
        The profile of the whole dataset; it is no shard.

    Raises:
        ProfileMismatchError: A shard is missing, is there twice, is of other data or options, or is no shard.
        DataError: A file cannot be read.

    Example:
        >>> import resque
        >>> model, data = resque.load_model("resque.networks:small_cnn"), resque.load_data("digits@16px@600")
        >>> parts = [resque.profile(model, data, shard=(number, 3)) for number in (1, 2, 3)]
        >>> [part.n for part in parts], merge(parts).n
        ([256, 256, 88], 600)
    """
    parts = [_load(each) for each in shards]
    if not parts:
        raise ProfileMismatchError("nothing to merge: name the profiles of all shards")
    for other in parts[1:]:
        _check_fit(parts[0], other)
    _check_complete([(name, shard) for name, shard, _ in parts])
    parts.sort(key=lambda part: part[1].number)
    found = [shard for _, shard, _ in parts]
    if any(one.stop != two.start for one, two in itertools.pairwise(found)) or found[-1].stop != found[0].total:
        raise ProfileMismatchError(
            "the shards do not cover the data without a gap, as another version has cut them: profile all of them anew"
        )
    total = sum((_plain(profile) for *_, profile in parts[1:]), _plain(parts[0][2]))
    if found[0].swap:
        total.swap_halves()
    return total


def _load(source: Profile | str | Path) -> tuple[str, Shard, Profile]:
    """Return name, shard and profile."""
    profile = source if isinstance(source, Profile) else Profile.load(source)
    name = f"shard {profile.shard}" if isinstance(source, Profile) else str(source)
    if profile.shard is None:
        raise ProfileMismatchError(
            f"{'a profile' if isinstance(source, Profile) else name} is whole, and no shard: leave it out; in Python "
            "p + q is the profile of different samples together"
        )
    return name, profile.shard, profile


def _check_fit(one: tuple[str, Shard, Profile], two: tuple[str, Shard, Profile]) -> None:
    """Raise ProfileMismatchError unless two profiles are shards of the same pass."""
    (first, a, before), (second, b, after) = one, two
    if a.of != b.of:
        raise ProfileMismatchError(
            f"{first} is shard {a}, {second} is shard {b}: profile all shards with the same number of shards"
        )
    if (a.data, a.total) != (b.data, b.total):
        raise ProfileMismatchError(
            f"{first} and {second} are shards of different data ({a.total} samples {a.data}, {b.total} samples "
            f"{b.data}): profile all shards of the same --data with the same --limit"
        )
    if before.labels_from != after.labels_from:
        raise ProfileMismatchError(
            f"{first} has {before.labels_from} labels, {second} {after.labels_from} labels: "
            "profile all shards with the same --labels"
        )
    check_same_space(before, after)


def _check_complete(shards: list[tuple[str, Shard]]) -> None:
    """Raise ProfileMismatchError unless every shard is there once."""
    times, of = Counter(shard.number for _, shard in shards), shards[0][1].of
    if twice := [number for number, count in times.items() if count > 1]:
        names = " and ".join(name for name, shard in shards if shard.number == twice[0])
        raise ProfileMismatchError(f"shard {twice[0]}/{of} is there {times[twice[0]]} times ({names}): name it once")
    if count := of - len(times):
        numbers = itertools.islice((number for number in range(1, of + 1) if number not in times), _SHOWN)
        shown = ", ".join(f"{number}/{of}" for number in numbers) + (", …" if count > _SHOWN else "")
        raise ProfileMismatchError(
            f"{count} of {of} shards {'is' if count == 1 else 'are'} missing: run `resque profile --shard` for {shown} "
            "with the same options, and name all files"
        )


def _plain(profile: Profile) -> Profile:
    """Return a profile as a part that can be added, with the same sums."""
    part = copy.copy(profile)
    part.shard = None
    return part
