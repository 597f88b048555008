import importlib
import pkgutil

from torch import nn

import jimmy_manager.models as package

BASES = {"ComputedTable", "ConvBlock", "ConvNormAct", "LayerStack", "NormActConv"}
"""What blocks are made from; nobody builds a model of these."""


def test_a_star_import_hands_out_every_public_name_and_no_other():
    handed_out: dict[str, object] = {}
    exec("from jimmy_manager.models import *", handed_out)
    del handed_out["__builtins__"]
    assert sorted(handed_out) == sorted(set(package.__all__)) == sorted(package.__all__)
    common = {"torch", "nn", "func", "Tensor", "Literal", "DEVICE", "getAutoCast"}
    assert common | {"JimmyModel", "MHSA", "MaskedLoss"} <= handed_out.keys()


def test_every_block_of_the_package_is_a_public_name():
    names = [found.name for found in pkgutil.iter_modules(package.__path__)]
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    own = {
        name
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module.__name__
    }
    public = {name for name in own if not name.startswith("_")}
    assert public > BASES
    assert public - BASES <= set(package.__all__)
