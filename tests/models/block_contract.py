"""What every block of the package must keep, whatever it computes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call


def check_block(make: Callable[[], nn.Module], *inputs: Tensor) -> None:
    """Fail unless the block that ``make`` returns keeps each rule below for float64 ``inputs``."""
    check_gradients(make().double(), *inputs)
    check_learning(make().double(), *inputs)
    check_state(make, *inputs)
    check_copies(make().double(), *inputs)
    check_compiled(make().double(), *inputs)
    check_dtypes(make(), *inputs)


def first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def check_gradients(block: nn.Module, *inputs: Tensor) -> None:
    """The gradients of inputs and parameters are those of finite differences."""
    names = [name for name, _ in block.named_parameters()]

    def run(*values: Tensor) -> Tensor:
        parameters = dict(zip(names, values[len(inputs) :], strict=True))
        return first(functional_call(block, parameters, values[: len(inputs)]))

    values = [each.detach().clone().requires_grad_() for each in (*inputs, *block.parameters())]
    assert torch.autograd.gradcheck(run, values, fast_mode=True)


def check_learning(block: nn.Module, *inputs: Tensor) -> None:
    """Every parameter, and every input, changes the output."""
    inputs = tuple(each.detach().clone().requires_grad_() for each in inputs)
    first(block(*inputs)).pow(3).sum().backward()
    for name, value in [*block.named_parameters(), *((f"input {i}", each) for i, each in enumerate(inputs))]:
        assert value.grad is not None, f"{name} receives no gradient"
        assert value.grad.isfinite().all(), name
        assert value.grad.abs().max() > 0, f"{name} has no influence"


def check_state(make: Callable[[], nn.Module], *inputs: Tensor) -> None:
    """A block with the state of another computes the same."""
    trained, fresh = make().double(), make().double()
    with torch.no_grad():
        trained(*inputs)  # moves running averages
        for parameter in trained.parameters():
            parameter.add_(torch.rand_like(parameter))
    fresh.load_state_dict(trained.state_dict())
    torch.testing.assert_close(fresh.eval()(*inputs), trained.eval()(*inputs), rtol=0, atol=0)


def check_copies(block: nn.Module, *inputs: Tensor) -> None:
    """A deep copy and a pickle compute the same."""
    block.eval()
    for twin in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        torch.testing.assert_close(twin(*inputs), block(*inputs), rtol=0, atol=0)


def check_compiled(block: nn.Module, *inputs: Tensor) -> None:
    """The block compiles as one graph, which computes the same."""
    torch.compiler.reset()  # or the many blocks of one class would reach the limit of recompilations
    block.eval()
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), block(*inputs), rtol=0, atol=1e-12)


def check_dtypes(block: nn.Module, *inputs: Tensor) -> None:
    """Whatever floating type the block is moved to is the type of its output."""
    for dtype in (torch.float32, torch.bfloat16):
        assert first(block.to(dtype)(*(each.to(dtype) for each in inputs))).dtype == dtype
