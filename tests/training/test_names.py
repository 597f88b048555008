import jimmy_manager.training as package


def test_a_star_import_hands_out_every_public_name_and_no_other():
    handed_out: dict[str, object] = {}
    exec("from jimmy_manager.training import *", handed_out)
    del handed_out["__builtins__"]
    assert sorted(handed_out) == sorted(set(package.__all__)) == sorted(package.__all__)
    assert {"JimmyExperiment", "JimmyTrainer", "DynamicConfig", "JimmyLRScheduler"} <= handed_out.keys()
