"""The console commands of an installed package; in a clone the scripts are called as files."""

from swift_hydra.settings import guard_imports, run_main


def swift_hydra():
    """``swift-hydra``, which is ``python SwiftHydra.py``."""
    guard_imports()
    from swift_hydra.SwiftHydra import main

    run_main(main)


def swift_hydra_pretrain():
    """``swift-hydra-pretrain``, which is ``python pretrain.py``."""
    guard_imports()
    from swift_hydra.pretrain import main

    run_main(main)
