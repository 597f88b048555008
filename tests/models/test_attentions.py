from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jimmy_manager.errors import ConfigError
from jimmy_manager.models.attentions import MHCA, MHSA, CrossAttention
from jimmy_manager.models.rotary_encoder import PosEncoderRotary
from tests.models.block_contract import check_block

DOUBLE = torch.float64
SHAPES = [(1, 1, 1, 4, 1), (2, 5, 5, 12, 3), (3, 4, 7, 8, 8), (4, 6, 3, 10, 2)]  # B, L, S, D, heads


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE)


def scrambled(block: nn.Module) -> Any:
    """Give every parameter, biases of zero included, a value of its own; in float64."""
    for parameter in block.double().parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def torch_attention(block: MHSA | MHCA) -> nn.MultiheadAttention:
    """Return torch's own attention with the weights of ``block``."""
    is_self = isinstance(block, MHSA)
    d_in = block.out.in_features
    d_cond = d_in if is_self else block.kv.in_features
    theirs = nn.MultiheadAttention(
        d_in, block.num_heads, block.dropout, kdim=d_cond, vdim=d_cond, batch_first=True, dtype=DOUBLE
    )
    if is_self:
        state = {"in_proj_weight": block.qkv.weight, "in_proj_bias": block.qkv.bias}
    else:
        key, value = block.kv.weight.chunk(2)
        state = {"in_proj_bias": torch.cat([block.q.bias, block.kv.bias])}
        if d_cond == d_in:
            state["in_proj_weight"] = torch.cat([block.q.weight, key, value])
        else:
            state |= {"q_proj_weight": block.q.weight, "k_proj_weight": key, "v_proj_weight": value}
    theirs.load_state_dict(state | {"out_proj.weight": block.out.weight, "out_proj.bias": block.out.bias})
    return theirs


def masks_for(kind: str, b: int, length: int, keys: int, heads: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return masks that leave every query a key, as our arguments and as torch's."""
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    if "padding" in kind:
        may = torch.rand(b, keys) < 0.6
        may[:, 0] = True
        ours["key_padding_mask"], theirs["key_padding_mask"] = may, ~may
    if "pairs" in kind:
        may = torch.rand(length, keys) < 0.6
        may[:, 0] = True
        ours["attn_mask"], theirs["attn_mask"] = may, ~may
    if "batch" in kind:
        may = torch.rand(b, length, keys) < 0.6
        may[:, :, 0] = True
        ours["attn_mask"], theirs["attn_mask"] = may, (~may).repeat_interleave(heads, dim=0)
    if "scores" in kind:
        scores = randn(length, keys)
        scores[:, 1:][torch.rand(length, keys - 1) < 0.3] = -torch.inf
        ours["attn_mask"] = theirs["attn_mask"] = scores
    if "causal" in kind:
        ours["causal"] = True
        later = torch.ones(length, keys, dtype=torch.bool).triu(1)
        if "attn_mask" not in theirs:
            theirs["attn_mask"] = later
        elif theirs["attn_mask"].dtype == torch.bool:
            theirs["attn_mask"] = theirs["attn_mask"] | later
        else:
            theirs["attn_mask"] = theirs["attn_mask"].masked_fill(later, -torch.inf)
    if "scores" in kind and "key_padding_mask" in theirs:  # torch wants both of one type
        may = ours["key_padding_mask"]
        theirs["key_padding_mask"] = torch.zeros(may.shape, dtype=DOUBLE).masked_fill(~may, -torch.inf)
    return ours, theirs


KINDS = ["none", "padding", "pairs", "batch", "scores", "causal", "padding+pairs", "padding+batch+causal",
         "padding+causal", "pairs+causal", "scores+causal", "padding+scores+causal"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["self", "cross", "condition"])
def test_attention_is_that_of_torch_in_values_and_gradients(name: str, shape: tuple[int, ...], kind: str) -> None:
    b, length, keys, d, heads = shape
    keys = length if name == "self" else keys
    x = randn(b, length, d).requires_grad_()
    if name == "self":
        block, inputs, qkv = scrambled(MHSA(d, heads)), [x], [x, x, x]
    else:
        d_cond = d if name == "cross" else d + 3
        cond = randn(b, keys, d_cond).requires_grad_()
        block = scrambled(CrossAttention(d, heads) if name == "cross" else MHCA(d, d_cond, heads))
        inputs, qkv = [x, cond], [x, cond, cond]
    ours, theirs = masks_for(kind, b, length, keys, heads)
    reference = torch_attention(block)
    expected, _ = reference(*qkv, need_weights=True, **theirs)
    got = block(*inputs, **ours)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    upstream = randn(*got.shape)
    for mine, its in zip(torch.autograd.grad(got, inputs, upstream, retain_graph=True),
                         torch.autograd.grad(expected, inputs, upstream, retain_graph=True), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-10, atol=1e-10)
    weights = torch.autograd.grad(got, [block.out.weight, block.out.bias], upstream)
    their_weights = torch.autograd.grad(expected, [reference.out_proj.weight, reference.out_proj.bias], upstream)
    for mine, its in zip(weights, their_weights, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-10, atol=1e-10)


def test_every_attention_keeps_the_contract_of_blocks() -> None:
    x, cond = randn(2, 5, 8), randn(2, 4, 6)
    check_block(lambda: MHSA(8, 2), x)
    check_block(lambda: MHSA(8, 2, rotary=PosEncoderRotary(4)), x)
    check_block(lambda: CrossAttention(8, 2), x, randn(2, 3, 8))
    check_block(lambda: MHCA(8, 6, 4), x, cond)


@pytest.mark.parametrize("kind", ["padding+batch+causal", "padding+scores+causal"])
def test_masked_gradients_are_those_of_finite_differences(kind: str) -> None:
    block, x, cond = scrambled(MHCA(4, 3, 2)), randn(2, 3, 4).requires_grad_(), randn(2, 5, 3).requires_grad_()
    ours, _ = masks_for(kind, 2, 3, 5, 2)
    ours["key_padding_mask"][0] = False  # a sample without any key
    assert torch.autograd.gradcheck(lambda *inputs: block(*inputs, **ours), (x, cond))


def test_a_mask_of_scores_may_be_learned() -> None:
    block, x, scores = scrambled(MHSA(4, 2)), randn(2, 3, 4), randn(3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: block(x, attn_mask=s), scores)


def forbid_all(kind: str) -> dict[str, Tensor]:
    """Leave query 2 of sample 1 without a key, and sample 0 untouched."""
    may = torch.ones(2, 4, 4, dtype=torch.bool)
    may[1, 2] = False
    if kind == "boolean":
        return {"attn_mask": may}
    return {"attn_mask": torch.zeros(2, 4, 4, dtype=DOUBLE).masked_fill(~may, -torch.inf)}


@pytest.mark.parametrize("kind", ["boolean", "scores"])
def test_a_query_without_keys_gives_zeros_and_no_gradient(kind: str) -> None:
    block, x = scrambled(MHSA(8, 2)), randn(2, 4, 8).requires_grad_()
    masks = forbid_all(kind)
    got = block(x, **masks)
    assert (got[1, 2] == 0).all()
    whole = block(x)
    others = torch.tensor([0, 1, 3])
    torch.testing.assert_close(got[0], whole[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(got[1, others], whole[1, others], rtol=1e-10, atol=1e-10)
    got[1, 2].sum().backward()
    assert all((each.grad == 0).all() for each in (x, *block.parameters()))
    # torch's own makes NaN of it:
    reference = torch_attention(block)
    mask = masks["attn_mask"] if kind == "scores" else ~masks["attn_mask"]
    nan, _ = reference(x, x, x, attn_mask=mask.repeat_interleave(2, dim=0))
    assert nan[1, 2].isnan().all()


def test_a_sample_of_padding_alone_gives_zeros() -> None:
    block, x, cond = scrambled(MHCA(8, 5, 2)), randn(2, 4, 8), randn(2, 3, 5)
    may = torch.tensor([[True, True, False], [False, False, False]])
    got = block(x, cond, key_padding_mask=may)
    assert (got[1] == 0).all()
    torch.testing.assert_close(got[:1], block(x[:1], cond[:1, :2]), rtol=1e-10, atol=1e-10)


def test_true_means_may_attend() -> None:
    block, x = scrambled(MHSA(8, 2)), randn(1, 4, 8)
    may = torch.tensor([[True, True, False, False]])
    torch.testing.assert_close(block(x, key_padding_mask=may)[:, :2], block(x[:, :2]), rtol=1e-10, atol=1e-10)
    only_itself = torch.eye(4, dtype=torch.bool)
    expected = torch.cat([block(x[:, i : i + 1]) for i in range(4)], dim=1)
    torch.testing.assert_close(block(x, attn_mask=only_itself), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("extra", [{}, {"key_padding_mask": torch.ones(2, 6, dtype=torch.bool)}])
def test_causal_attention_does_not_see_the_future(extra: dict[str, Tensor]) -> None:
    block, x = scrambled(MHSA(8, 2)), randn(2, 6, 8)
    changed = x.clone()
    changed[:, 4:] += 1
    before, after = block(x, causal=True, **extra), block(changed, causal=True, **extra)
    torch.testing.assert_close(after[:, :4], before[:, :4], rtol=1e-12, atol=1e-12)
    assert (after[:, 4:] - before[:, 4:]).abs().min() > 0
    assert (block(changed, **extra) - block(x, **extra))[:, :4].abs().min() > 0


def test_dropout_falls_on_the_weights_and_in_training_only() -> None:
    block, x = scrambled(MHSA(8, 2, dropout=0.5)), randn(2, 6, 8)
    reference = torch_attention(block)
    torch.manual_seed(3)
    dropped = block(x)
    torch.manual_seed(3)
    expected, _ = reference(x, x, x, need_weights=False)
    torch.testing.assert_close(dropped, expected, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(block(x), dropped)
    block.eval()
    assert torch.equal(block(x), block(x))
    without = MHSA(8, 2).double()
    without.load_state_dict(block.state_dict())
    assert torch.equal(block(x), without(x))


def test_the_rotary_encoder_makes_attention_depend_on_distances() -> None:
    block, x = scrambled(MHSA(8, 2, rotary=PosEncoderRotary(4))), randn(1, 5, 8)
    # The same token everywhere but at one place: how it is seen depends on how far it is.
    same = x[:, :1].expand(1, 5, 8).clone()
    assert torch.allclose(block(same), block(same)[:, :1])
    same[:, 2] = x[:, 1]
    weights = block(same)
    assert not torch.allclose(weights[:, 0], weights[:, 1])
    block.rotary = None
    plain = block(same)
    torch.testing.assert_close(plain[:, 0], plain[:, 1], rtol=1e-12, atol=1e-12)


def test_the_rotary_hook_takes_any_callable_on_queries_and_keys_split_by_heads() -> None:
    met: list[tuple[int, ...]] = []

    def double(heads: Tensor) -> Tensor:
        met.append(tuple(heads.shape))
        return 2 * heads

    block, x, cond = scrambled(CrossAttention(12, 3, rotary=double)), randn(2, 5, 12), randn(2, 7, 12)
    got = block(x, cond)
    assert met == [(2, 3, 5, 4), (2, 3, 7, 4)]
    block.rotary = None
    with torch.no_grad():
        for each in (block.q, block.kv):
            each.weight[:12] *= 2
            each.bias[:12] *= 2
    torch.testing.assert_close(got, block(x, cond), rtol=1e-10, atol=1e-10)


def test_a_rotary_module_is_part_of_the_model() -> None:
    rotary = nn.Identity()
    assert rotary in set(MHSA(8, 2, rotary=rotary).modules())


def test_mixed_precision_takes_masks_of_any_type() -> None:
    block, x = MHSA(8, 2), torch.randn(2, 4, 8)
    scores = torch.zeros(4, 4, dtype=DOUBLE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert block(x, attn_mask=scores, key_padding_mask=torch.ones(2, 4, dtype=torch.bool)).dtype == torch.bfloat16


def test_no_value_is_read_back() -> None:
    with torch.device("meta"):  # whose tensors have no values to read
        block, x, may = MHSA(8, 2), torch.zeros(2, 4, 8), torch.ones(2, 4, dtype=torch.bool)
        assert block(x, may, torch.zeros(4, 4), causal=True).shape == x.shape


@pytest.mark.parametrize("make", [lambda: MHSA(10, 3), lambda: CrossAttention(10, 3), lambda: MHCA(10, 4, 3)])
def test_a_width_that_heads_do_not_share_evenly_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match="d_in=10 is not divisible by num_heads=3"):
        make()


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 5])
def test_a_dropout_that_is_no_probability_is_refused(dropout: float) -> None:
    with pytest.raises(ConfigError, match=r"give one in \[0, 1\)"):
        MHSA(8, 2, dropout)


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        ({"key_padding_mask": torch.ones(2, 5).bool()}, r"shape \(2, 5\); give one of shape \(2, 4\)"),
        ({"key_padding_mask": torch.ones(4).bool()}, r"shape \(4,\)"),
        ({"attn_mask": torch.ones(3, 4).bool()}, r"give one of shape \(4, 4\) or \(2, 4, 4\)"),
        ({"attn_mask": torch.ones(1, 4, 4).bool()}, r"attn_mask has shape \(1, 4, 4\)"),
        ({"attn_mask": torch.ones(4, 4).long()}, r"is of torch.int64; give booleans"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks: dict[str, Tensor], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        MHSA(8, 2)(torch.zeros(2, 4, 8), **masks)
