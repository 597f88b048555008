"""Training: the trainer, experiments, schedulers, averages, progress and logs."""

from jimmy_manager.training.dynamic_config import DynamicConfig
from jimmy_manager.training.jimmy_experiment import JimmyExperiment
from jimmy_manager.training.jimmy_lr_scheduler import JimmyLRScheduler
from jimmy_manager.training.jimmy_trainer import JimmyTrainer
from jimmy_manager.training.moving_avg import MovingAvg, MovingAvgGroup
from jimmy_manager.training.progress_manager import ProgressManager
from jimmy_manager.training.run_record_manager import RunRecord, RunRecordManager
from jimmy_manager.training.runtime_params import RuntimeParams, set_rate
from jimmy_manager.training.scheduler_adapter import ConstantRate, SchedulerAdapter, adapt_scheduler
from jimmy_manager.training.tensorboard_manager import TensorBoardManager

__all__ = [
    "ConstantRate",
    "DynamicConfig",
    "JimmyExperiment",
    "JimmyLRScheduler",
    "JimmyTrainer",
    "MovingAvg",
    "MovingAvgGroup",
    "ProgressManager",
    "RunRecord",
    "RunRecordManager",
    "RuntimeParams",
    "SchedulerAdapter",
    "TensorBoardManager",
    "adapt_scheduler",
    "set_rate",
]
