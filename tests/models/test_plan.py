import pytest
from hypothesis import given
from hypothesis import strategies as st

from vimvol.errors import InputError
from vimvol.models.plan import LEAST, plan_unet

extent = st.integers(12, 900)


@pytest.mark.parametrize(
    ("patch", "stages", "divisor"),
    [((512, 512), 8, 128), ((320, 320), 7, 64), ((384, 640), 7, 64), ((224, 224), 6, 32), ((12, 900), 8, 128)],
)
def test_stages_of_nnunet(patch, stages, divisor):
    plan = plan_unet(patch)
    assert (len(plan.strides), plan.divisor) == (stages, divisor)
    assert plan.features == (32, 64, 128, 256, 512, 512, 512, 512)[:stages]
    assert set(plan.kernels) == {(3, 3)}


def test_coarse_axes_wait_until_the_others_are_as_coarse():
    plan = plan_unet((128, 512), (4.0, 1.0))
    assert plan.strides == ((1, 1), (1, 2), (1, 2), (2, 2), (2, 2), (2, 2), (2, 2), (2, 2))
    assert plan.kernels == ((1, 3), (1, 3), *[(3, 3)] * 6)


@given(st.tuples(extent, extent), st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)))
def test_every_plan_is_as_deep_as_it_may_be(patch, spacing):
    plan = plan_unet(patch, spacing)
    assert len(plan.strides) == len(plan.kernels) == len(plan.features)
    assert plan.strides[0] == (1, 1)
    size = patch
    for stride in plan.strides[1:]:
        assert set(stride) <= {1, 2}
        assert stride != (1, 1)
        size = tuple(-(-s // f) for s, f in zip(size, stride, strict=True))
    left = [s for s, before in zip(size, patch, strict=True) if s != before]
    assert min(left) >= LEAST
    assert min(size) < 2 * LEAST or max(size) < 3 * LEAST or max(spacing) >= 2 * min(spacing)
    assert plan == plan_unet(patch, [3 * s for s in spacing])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (((8, 8, 8),), r"patch=\(8, 8, 8\).*\(y, x\)"),
        (((64, 64), (0, 1)), r"spacing=\(0, 1\)"),
        (((64, 64), (1, 1), 0), "features=0"),
        (((7, 7),), "cannot be halved"),
    ],
)
def test_what_plans_no_network(arguments, says):
    with pytest.raises(InputError, match=says):
        plan_unet(*arguments)
