import numpy as np
import pytest
from elf.segmentation.multicut import compute_edge_costs
from hypothesis import given
from hypothesis import strategies as st

from vimvol.segment.costs import ACROSS_WEIGHT, cut_across, edge_costs, weights_across
from vimvol.segment.multicut.solvers import solve

MEAN = np.array([0.0, 0.1, 0.5, 0.9, 1.0])
ONE = np.ones(5, np.int64)


def test_low_boundaries_attract_and_high_ones_repel():
    cost = edge_costs(MEAN, ONE)
    assert (np.sign(cost) == [1, 1, 0, -1, -1]).all()
    assert (np.diff(cost) < 0).all()
    assert cost == pytest.approx(-cost[::-1])
    assert cost[0] == pytest.approx(np.log(999))


def test_beta_is_the_probability_at_which_an_edge_is_neutral():
    # the prior of a cut weighs as much as evidence of the same probability
    for beta in (0.2, 0.5, 0.7):
        assert edge_costs(np.array([1 - beta]), ONE[:1], beta) == pytest.approx([0], abs=1e-12)
    assert (edge_costs(MEAN, ONE, 0.7) < edge_costs(MEAN, ONE, 0.3)).all()


def test_size_scales_an_edge_and_no_other():
    size = np.array([1, 2, 3, 40, 5])
    assert edge_costs(MEAN, size) == pytest.approx(edge_costs(MEAN, ONE) * size)
    assert edge_costs(MEAN, size, size_weighting=False) == pytest.approx(edge_costs(MEAN, ONE))
    assert (edge_costs(MEAN[:2], size[:2]) == edge_costs(MEAN, size)[:2]).all()


@pytest.mark.parametrize(("weighting", "scheme"), [(True, "all"), (False, "none")])
@pytest.mark.parametrize("beta", [0.3, 0.5, 0.6])
def test_costs_agree_with_elf_up_to_scale(weighting, scheme, beta):
    rng = np.random.default_rng(0)
    mean, size = rng.uniform(0.05, 0.95, 200), rng.integers(1, 500, 200)
    expected = compute_edge_costs(mean, size.astype(float), beta=beta, weighting_scheme=scheme)
    expected *= size.max() if weighting else 1
    assert edge_costs(mean, size, beta, weighting) == pytest.approx(expected, rel=0.05, abs=0.05 * size.max())
    # elf squeezes probabilities into [.001, .999] where we clip them
    assert np.corrcoef(edge_costs(mean, size, beta, weighting), expected)[0, 1] > 0.99999


@pytest.mark.parametrize("beta", [0.0, 1.0, -1.0])
def test_a_beta_that_is_no_probability_is_refused(beta):
    with pytest.raises(ValueError, match="beta"):
        edge_costs(MEAN, ONE, beta)


def test_no_edges_have_no_costs():
    assert edge_costs(np.empty(0), np.empty(0, np.int64)).shape == (0,)


def test_every_edge_may_have_its_own_prior():
    mean, size = np.array([0.2, 0.6]), np.array([3, 5])
    both = edge_costs(mean, size, np.array([0.3, 0.7]))
    assert both[0] == edge_costs(mean[:1], size[:1], 0.3)[0]
    assert both[1] == edge_costs(mean[1:], size[1:], 0.7)[0]
    with pytest.raises(ValueError, match="is no probability"):
        edge_costs(mean, size, np.array([0.3, 1.0]))


@given(st.floats(0, 1), st.integers(1, 1000), st.integers(1, 1000))
def test_across_sections_a_cut_is_as_likely_as_the_boundary_and_as_the_overlap_is_small(mean, overlap, more):
    smaller = np.array([overlap + more, overlap])
    part, whole = cut_across(np.array([mean, mean]), np.array([overlap, overlap]), smaller)
    assert whole == pytest.approx(mean)
    assert mean <= part <= 1
    # a quarter of a fragment's width lies over the other: half of the chance is left
    assert cut_across(np.array([mean]), np.array([1]), np.array([16]))[0] == pytest.approx(1 - (1 - mean) / 2)


@given(st.integers(1, 10**6), st.integers(1, 100))
def test_across_sections_an_edge_weighs_as_a_length_does(count, times):
    near, far = weights_across(np.array([count, count * times**2]))
    assert near == pytest.approx(ACROSS_WEIGHT * np.sqrt(count))
    assert far == pytest.approx(times * near)  # all lengths so many times as large


@pytest.mark.parametrize("side", [10, 100, 1000])
def test_a_fragment_over_two_others_does_not_join_them_through_a_membrane(side):
    # two squares of a section side by side, a membrane between them; one of the next section lies half over each
    uv = np.array([[0, 1], [0, 2], [1, 2]], np.uint64)
    across, count = np.array([False, True, True]), np.array([side, side**2 // 2, side**2 // 2])
    cut = cut_across(np.array([0.97, 0.1, 0.1]), count, np.array([side**2] * 3))
    weights = np.where(across, weights_across(count), count)
    costs = edge_costs(np.where(across, cut, 0.97), weights, np.where(across, 0.4, 0.25))
    labels = solve(3, uv, costs)
    assert labels[0] != labels[1]
    assert labels[2] in labels[:2]
