import importlib

import jimmy_manager.datasets as package


def test_a_star_import_hands_out_every_public_name_and_no_other():
    handed_out: dict[str, object] = {}
    exec("from jimmy_manager.datasets import *", handed_out)
    del handed_out["__builtins__"]
    assert sorted(handed_out) == sorted(set(package.__all__)) == sorted(package.__all__)
    assert {"torch", "nn", "Tensor", "Literal", "DEVICE", "getAutoCast", "JimmyDataset"} <= handed_out.keys()


def test_every_dataset_of_the_package_is_a_public_name():
    modules = ("dict_dataset", "digits_dataset", "jimmy_dataset", "mnist_dataset", "torch_dataset")
    for name in modules:
        module = importlib.import_module(f"jimmy_manager.datasets.{name}")
        own = {
            key
            for key, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__
        }
        assert {key for key in own if not key.startswith("_")} <= set(package.__all__)
