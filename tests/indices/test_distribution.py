import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resque.errors import ProfileMismatchError, RepresentationError, SettingError, UndefinedDirectionError
from resque.indices.angles import angle_between
from resque.indices.class_sums import HALVES
from resque.indices.distribution import resque_dist
from resque.indices.half_assignment import assign_half
from resque.indices.profile import Profile


def two_sets(seed, n=50, m=70, width=6, classes=3):
    generator = np.random.default_rng(seed)
    y, w = np.arange(n) % classes, np.arange(m) % classes
    return generator.normal(size=(n, width)) + 1, y, generator.normal(size=(m, width)) + 1, w


def index(z, y, x, w, **options):
    return resque_dist(Profile.from_arrays(z, y), Profile.from_arrays(x, w), **options)


def oracle(z, y, x, w):
    """Eq. 1-3 in 50 digits."""
    mpmath.mp.dps = 50
    angles = {}
    for label in sorted(set(y)):
        u, v = (mpmath.matrix([mpmath.fsum(map(mpmath.mpf, column)) for column in rows[of == label].T.tolist()])
                for rows, of in ((z, y), (x, w)))  # fmt: skip
        cosine = mpmath.fdot(u, v) / (mpmath.norm(u) * mpmath.norm(v))
        angles[label] = mpmath.acos(cosine)
    return float(mpmath.fsum(angles.values()) / len(angles)), angles


@given(seed=st.integers(0, 10**6))
def test_index_matches_equations_1_to_3(seed):
    data = two_sets(seed)
    expected, angles = oracle(*data)
    result = index(*data)
    assert result.value == pytest.approx(expected, abs=1e-12)
    assert all(result.per_class[label] == pytest.approx(float(angle), abs=1e-12) for label, angle in angles.items())


@given(seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e6))
def test_index_is_symmetric_and_invariant_to_order_scale_rotation_and_labels(seed, scale):
    z, y, x, w = two_sets(seed)
    value = index(z, y, x, w).value
    order = np.random.default_rng(seed).permutation(len(z))
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))
    assert index(x, w, z, y).value == pytest.approx(value, abs=1e-12)
    assert index(z[order], y[order], x, w).value == pytest.approx(value, abs=1e-12)
    assert index(z * scale, y, x, w).value == pytest.approx(value, abs=1e-12)
    assert index(z @ rotation, y, x @ rotation, w).value == pytest.approx(value, abs=1e-12)
    assert index(z, y * 7 - 3, x, w * 7 - 3).value == pytest.approx(value, abs=1e-12)
    assert index(z, y, z, y).value == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-9, 1e-5, 1e-3, 1.0, math.pi / 2, math.pi - 1e-9, math.pi])
def test_angle_is_exact_near_0_and_pi(angle):
    u, v = np.array([1.0, 0.0]), np.array([math.cos(angle), math.sin(angle)])
    assert angle_between(u, v) == pytest.approx(angle, abs=1e-15)
    assert angle_between(1e-200 * u, 1e200 * v) == pytest.approx(angle, abs=1e-15)


def test_unit_applies_to_value_floor_and_classes():
    data = two_sets(0)
    rad, pi = index(*data), index(*data, unit="pi")
    assert (rad.unit, pi.unit) == ("rad", "pi")
    assert pi.value * math.pi == pytest.approx(rad.value)
    assert pi.floor * math.pi == pytest.approx(rad.floor)
    assert pi.per_class[1] * math.pi == pytest.approx(rad.per_class[1])
    with pytest.raises(SettingError, match="use 'rad' or 'pi'"):
        index(*data, unit="deg")


def test_class_without_a_direction_raises_or_is_skipped():
    z, y = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), [0, 1, 2]
    x, w = np.array([[1.0, 0.0], [1.0, 1.0], [-1.0, -1.0]]), [0, 1, 1]
    with pytest.raises(
        UndefinedDirectionError, match="class 1 has representations that sum to zero in the shifted data"
    ):
        index(z, y, x, w)
    with pytest.raises(UndefinedDirectionError, match="class 2 has no samples in the shifted data"):
        index(z, y, x[:2], w[:2])
    skipped = index(z, y, x, w, undefined="skip")
    assert skipped.per_class == {0: 0.0, 1: None, 2: None}
    assert skipped.value == 0.0
    with pytest.raises(UndefinedDirectionError, match="share labels"):
        index(z, y, z, [3, 4, 5], undefined="skip")
    with pytest.raises(SettingError):
        index(z, y, z, y, undefined="ignore")


def test_declared_class_without_samples_is_ignored():
    z, y, x, w = two_sets(0)
    declared = [0, 1, 2, 9]
    value = resque_dist(Profile.from_arrays(z, y, classes=declared), Profile.from_arrays(x, w, classes=declared))
    assert value.value == index(z, y, x, w).value
    assert set(value.per_class) == {0, 1, 2}


def test_different_widths_raise():
    with pytest.raises(ProfileMismatchError, match="width: 2 and 3"):
        index(np.ones((2, 2)), [0, 1], np.ones((2, 3)), [0, 1])


def simulated(seed, n_original, n_shifted, turn, noise=3.0, width=40, classes=4):
    """Class directions with noise around them; the shifted ones are turned by ``turn`` in a plane."""
    generator = np.random.default_rng(seed)
    centers = generator.normal(size=(classes, width))
    other = generator.normal(size=(classes, width))
    other -= centers * (other * centers).sum(1, keepdims=True) / (centers**2).sum(1, keepdims=True)
    other *= np.linalg.norm(centers, axis=1, keepdims=True) / np.linalg.norm(other, axis=1, keepdims=True)
    turned = math.cos(turn) * centers + math.sin(turn) * other
    y, w = np.arange(n_original) % classes, np.arange(n_shifted) % classes
    z = centers[y] + noise * generator.normal(size=(n_original, width))
    x = turned[w] + noise * generator.normal(size=(n_shifted, width))
    return z, y, x, w


def test_floor_is_the_expected_index_without_a_shift():
    result = [index(*simulated(seed, 800, 200, 0.0)) for seed in range(30)]
    floor, value = np.mean([f.floor for f in result]), np.mean([f.value for f in result])
    assert value == pytest.approx(floor, rel=0.05)
    assert value > 0.15  # far from zero: without the floor it would pass for a shift


def test_debiasing_removes_most_of_the_bias():
    turn = 0.4
    pairs = [(index(*data).value, index(*data, debias=True).value) for data in
             (simulated(seed, 400, 200, turn) for seed in range(30))]  # fmt: skip
    plain, debiased = np.mean(pairs, axis=0)
    assert plain > 1.15 * turn
    assert abs(debiased - turn) < (plain - turn) / 5


def covered(debias, turn, runs=120, level=0.9, **sizes):
    """Share of simulated data sets whose interval holds what it is said to be of, and the mean width."""
    result = [index(*simulated(seed, turn=turn, **sizes), debias=debias, level=level) for seed in range(runs)]
    aim = turn if debias else np.mean([f.value for f in result])
    held = [f.interval.low <= aim <= f.interval.high for f in result]
    return np.mean(held), np.mean([f.interval.high - f.interval.low for f in result])


@pytest.mark.parametrize("debias", [False, True])
@pytest.mark.parametrize(("turn", "noise"), [(0.4, 1.0), (0.4, 3.0), (1.0, 3.0)])
def test_intervals_cover_at_nominal_rate(debias, turn, noise):
    share, width = covered(debias, turn, n_original=1000, n_shifted=300, noise=noise)
    assert share > 0.9 - 3.5 * math.sqrt(0.9 * 0.1 / 120)
    assert width < turn


def test_higher_level_gives_a_wider_interval_around_the_index():
    data = simulated(0, 400, 200, 0.4)
    for debias in (False, True):
        narrow, wide = (index(*data, debias=debias, level=level).interval for level in (0.5, 0.99))
        assert wide.low < narrow.low < index(*data, debias=debias).value < narrow.high < wide.high
    assert "noise included" in index(*data).interval.guarantee
    assert "without sampling noise" in index(*data, debias=True).interval.guarantee
    with pytest.raises(SettingError, match="between 0 and 1"):
        index(*data, level=90)


def test_debiased_index_without_a_shift_is_near_zero_and_its_interval_includes_zero():
    result = [index(*simulated(seed, 1000, 300, 0.0), debias=True) for seed in range(30)]
    plain = np.mean([index(*simulated(seed, 1000, 300, 0.0)).value for seed in range(30)])
    assert np.mean([f.value for f in result]) < plain / 4
    assert np.mean([f.interval.low == 0.0 for f in result]) > 0.7


def test_class_with_one_sample_keeps_the_index_but_removes_interval_and_floor():
    z, y, x, w = simulated(0, 80, 60, 0.4)
    z, y = np.vstack([z, z[:1] + 1]), np.append(y, 9)
    x, w = np.vstack([x, x[:1] - 1]), np.append(w, 9)
    result = index(z, y, x, w)
    assert result.per_class[9] == pytest.approx(angle_between(z[-1], x[-1]))
    assert result.interval is None
    assert result.floor is None
    corrected = index(z, y, x, w, debias=True)
    assert set(corrected.per_class) == {0, 1, 2, 3, 9}
    assert corrected.interval is not None


def test_debiased_angle_of_one_class_matches_its_formula():
    """One class, no noise along the arc: the cosine of the halves' mean, divided by how well they agree."""
    o, s = np.array([[3.0, 0.4], [3.0, -0.4]]), np.array([[2.0, 2.0], [2.0, 2.0]])
    original, shifted = Profile(), Profile()
    numbers = halves_apart()
    original.update(o, [0, 0], indices=numbers)
    shifted.update(s, [0, 0], indices=numbers)
    units = o / np.linalg.norm(o, axis=1, keepdims=True)
    cosine = (units.mean(0) @ s[0] / np.linalg.norm(s[0])) / math.sqrt(units[0] @ units[1])
    assert resque_dist(original, shifted, debias=True).value == pytest.approx(math.acos(cosine), abs=1e-12)


def halves_apart():
    """Two sample numbers that fall into different halves."""
    bits = assign_half(torch.arange(50)).tolist()
    return [bits.index(0), bits.index(1)]


def test_debiasing_raises_if_halves_contradict_each_other():
    numbers, contrary = halves_apart(), [[1.0, 0.1], [-1.0, 0.1]]
    original, shifted = Profile(), Profile()
    original.update(contrary, [0, 0], indices=numbers)
    shifted.update(contrary, [0, 0], indices=numbers)
    assert resque_dist(original, shifted).value == 0.0
    with pytest.raises(UndefinedDirectionError, match="compare the plain index with its floor"):
        resque_dist(original, shifted, debias=True)


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1e300])
def test_extreme_scales_neither_overflow_nor_underflow(scale):
    data = simulated(1, 60, 50, 0.4)
    plain, moved = index(*data), index(data[0] * scale, data[1], data[2], data[3])
    assert moved.value == pytest.approx(plain.value, abs=1e-12)
    assert moved.interval.high == pytest.approx(plain.interval.high, abs=1e-9)
    assert moved.floor == pytest.approx(plain.floor, abs=1e-9)


def test_small_angles_between_float32_representations_are_resolved():
    """The arc cosine of a float32 dot product is blind below 3.5e-4 rad."""
    for angle in (1e-5, 1e-4):
        z = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
        x = np.array([[1.0, angle], [-angle, 1.0]], dtype=np.float32)
        assert index(z, [0, 1], x, [0, 1]).value == pytest.approx(math.atan(float(np.float32(angle))), rel=1e-9)


def test_duplicates_and_gaps_in_the_labels_do_not_change_the_index():
    z, y, x, w = two_sets(3)
    value = index(z, y, x, w).value
    assert index(np.repeat(z, 3, axis=0), np.repeat(y, 3), x, w).value == pytest.approx(value, abs=1e-12)
    gaps = np.array([-5, 0, 10**12])
    assert index(z, gaps[y], x, gaps[w]).value == pytest.approx(value, abs=1e-12)
    assert list(index(z, gaps[y], x, gaps[w]).per_class) == gaps.tolist()


def test_result_states_the_number_of_sub_sums():
    assert index(*two_sets(0)).sub_sums == HALVES == 2


def test_intervals_contain_the_index_and_stay_between_0_and_pi():
    for seed, shift in itertools.product(range(60), (0.0, 1e-170, 1e-8, 1.0)):
        z, y, x, w = two_sets(seed, n=12, m=12, width=2 + seed % 4)
        x = z + shift if seed % 2 else x * (1 + shift)
        for debias in (False, True):
            try:
                result = index(z, y, x, w, debias=debias)
            except UndefinedDirectionError:
                continue
            assert (
                result.interval is None or 0.0 <= result.interval.low <= result.value <= result.interval.high <= math.pi
            )
            assert result.floor is None or 0.0 <= result.floor <= math.pi


def test_interval_of_identical_data_is_not_empty():
    z, y, _, _ = two_sets(3)
    result = index(z, y, z, y)
    assert result.value == pytest.approx(0.0, abs=1e-7)
    assert result.interval.high > 0.1 * result.floor


@given(seed=st.integers(0, 10**6), n=st.integers(4, 300))
def test_class_that_sums_to_zero_in_exact_arithmetic_has_no_direction(seed, n):
    half = np.random.default_rng(seed).normal(size=(n, 3))
    z = np.random.default_rng(seed + 1).permutation(np.concatenate([half, -half]))
    with pytest.raises(UndefinedDirectionError, match="class 0 has representations that sum to zero in the shifted"):
        index(half, np.zeros(n, int), z, np.zeros(2 * n, int))


@pytest.mark.parametrize("left", [1e-8, 1e-10])
def test_remainder_of_a_cancellation_gives_the_direction(left):
    z = np.array([[1.0, left], [-1.0, left]] * 8)
    assert index(z, np.zeros(16, int), [[0.0, 1.0]], [0]).value == pytest.approx(0.0, abs=1e-7)


def test_result_states_labels_and_skipped_classes():
    z, y, x, w = two_sets(1)
    one, other = Profile.from_arrays(z, y), Profile.from_arrays(x[w < 2], w[w < 2])
    one.labels_from = "pseudo"
    result = resque_dist(one, other, undefined="skip")
    assert (result.labels_original, result.labels, result.skipped) == ("pseudo", "true", 1)
    with pytest.raises(UndefinedDirectionError, match="samples that the model predicts as that class"):
        resque_dist(one, other)
    with pytest.raises(RepresentationError, match="expected two profiles"):
        resque_dist(z, x)
    with pytest.raises(TypeError):
        one + 1
